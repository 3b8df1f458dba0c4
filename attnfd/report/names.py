"""The names of students and methods in tables and figures: the titles of their components."""

from collections.abc import Mapping
from typing import NamedTuple, Self

from attnfd import discovery
from attnfd.config.network import DEEPLAB, NetworkConfig
from attnfd.config.params import Params
from attnfd.models import backbones
from attnfd.paths import TEACHER
from attnfd.results.style import plain


class Names(NamedTuple):
    """Titles by key. A student named like its backbone has the backbone's title; others have their key."""

    students: Mapping[str, str]
    methods: Mapping[str, str]
    teacher: str

    @classmethod
    def of(cls, params: Params, dataset: str) -> Self:
        """Titles of all that runs on a dataset."""
        students = dict.fromkeys((*params.run.students, *params.run.ablate.students))
        methods = dict.fromkeys((*params.run.methods, "none", "attnfd"))
        return cls(
            students={
                key: backbones.title(key) if key == params.student(key).backbone else key for key in students
            },
            methods={key: discovery.component("distillers", key).title or key for key in methods},
            teacher=_title(params.train_teacher(dataset)),
        )

    def student(self, key: str) -> str:
        """The title of a student, or of the teacher's network."""
        return plain(self.teacher if key == TEACHER else self.students.get(key, key))

    def method(self, key: str) -> str:
        """The title of a method or of a variant of AttnFD; `teacher` for an empty key."""
        return plain(self.methods.get(key, key) or TEACHER)


def _title(network: NetworkConfig) -> str:
    return backbones.title(network.made_of) if network.network == DEEPLAB else network.made_of

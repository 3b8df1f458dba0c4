"""`python -m attnfd`: the code in the working directory, which is what a DVC stage must run."""

from attnfd.cli import main

main()

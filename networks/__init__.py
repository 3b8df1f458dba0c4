"""Networks of your own, for `network: module`; every stage that makes a network depends on this folder."""

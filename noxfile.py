"""The checks of the repository: `nox` runs lint, types and tests; `nox -s slow` the long tests.

They run in the environment that nox itself is installed in: another torch for each session would take minutes.
"""

import sys

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, import direction and formatting."""
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    session.run(sys.executable, "-m", "mypy")
    # By themselves: examples and tests have modules of one name.
    session.run(sys.executable, "-m", "mypy", "examples", env={"MYPYPATH": "tests"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that take seconds; `nox -s tests -- -k cli` runs some of them."""
    # Tests use one core each; a file is shared out only where a process has nothing else left to do.
    session.run(
        sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "--durations", "20", *session.posargs
    )


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    session.run(sys.executable, "-m", "pytest", "-m", "slow", *session.posargs)

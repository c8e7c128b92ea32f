"""Sessions for nox: the checks of .ci/run one by one, and the tests on all supported Pythons.

nox                   run lint, types, docs, notebooks, build and wheel
nox -s tests          run the tests on every supported Python that is installed
nox -s tests_oldest   run the tests with the oldest supported release of each dependency
nox -s ecosystem      run the tests with timm, lightning, torchgeo, accelerate and others
nox -s docs_oldest    build the site with the oldest supported release of each package in the extra docs
"""

from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
NOTEBOOKS = sorted(str(path) for path in Path("examples/notebooks").glob("*.ipynb"))
QUIET = {"NO_MKDOCS_2_WARNING": "1"}  # hides the notice of mkdocs-material, see docs/development/releasing.md
ECOSYSTEM = ["timm", "lightning", "torchgeo", "torchmetrics", "accelerate", "tifffile", "pycocotools"]
VERSIONS = """
import importlib.metadata, sys
print("Python", sys.version.split()[0])
for name in ["torch", "pytorch-metric-learning", *sys.argv[1:]]:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(name, "is not installed")
"""
IMPORT_ALL = """
import importlib, pkgutil, pml_macl
names = [info.name for info in pkgutil.walk_packages(pml_macl.__path__, "pml_macl.")]
for name in names:
    importlib.import_module(name)
print(f"pml_macl {pml_macl.__version__}: {len(names)} modules imported from {pml_macl.__path__[0]}")
"""

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "docs", "notebooks", "build", "wheel"]


def oldest(*extras: str) -> list[str]:
    """Return requirements that pin the lower bounds in pyproject.toml; ``core`` means the dependencies."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    requirements = [requirement for extra in extras for requirement in groups[extra]]
    return [requirement.split(",")[0].replace(">=", "==") + ".*" for requirement in requirements]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with the newest release of each dependency."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs, env={"PML_MACL_STEPS": "10000"})


@nox.session(python="3.10")
def tests_oldest(session: nox.Session) -> None:
    """Run the tests with the lower bounds of the core and of the extras examples, search and torchmetrics."""
    session.install("-e", ".[dev]", *oldest("core", "examples", "search", "torchmetrics"))
    # Old releases warn about each other, and pyproject.toml turns warnings into errors.
    session.run("python", "-m", "pytest", "-W", "default", *session.posargs)


@nox.session
def ecosystem(session: nox.Session) -> None:
    """Run the tests that need libraries of others, and the recipes, and print their times.

    The tests of a library that cannot be installed are skipped.
    """
    session.install("-e", ".[dev]")
    for library in ECOSYSTEM:
        try:
            session.install(library)
        except nox.command.CommandFailed:
            session.warn(f"{library} cannot be installed; its tests are skipped")
    session.run("python", "-c", VERSIONS, *ECOSYSTEM)
    env = {"PML_MACL_ECOSYSTEM": "1"}  # also run the tests that compile
    tests = ["tests/ecosystem", "tests/test_use_pages.py"]
    session.run("python", "-m", "pytest", *tests, "-rs", "--durations=0", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff: rules and format."""
    session.install("ruff>=0.8")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Run mypy."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site with the extra docs alone."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp() + "/site", env=QUIET)


@nox.session
def docs_oldest(session: nox.Session) -> None:
    """Build the site with the lower bounds of the extra docs."""
    session.install("-e", ".[docs]", *oldest("docs"))
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp() + "/site", env=QUIET)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run the notebooks without changing the committed files."""
    session.install("-e", ".[dev]")
    session.run("jupyter", "execute", *session.posargs, *NOTEBOOKS)


@nox.session
def build(session: nox.Session) -> None:
    """Build the source archive, and from it the wheel for the session ``wheel``."""
    session.install("build>=1.2", "twine>=6.1")
    folder = session.cache_dir / "dist"
    for old in folder.glob("pml_macl-*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", str(folder))
    session.run("twine", "check", "--strict", *map(str, folder.glob("pml_macl-*")))


@nox.session
def wheel(session: nox.Session) -> None:
    """Install the wheel without extras and import every module."""
    wheels = list((session.cache_dir / "dist").glob("pml_macl-*.whl"))
    if len(wheels) != 1:
        session.error(f"expected one wheel in {session.cache_dir}/dist, found {len(wheels)}; run nox -s build first")
    session.install(str(wheels[0]))
    session.chdir(session.create_tmp())  # in the repository, Python would import the source folder
    session.run("python", "-c", IMPORT_ALL)

"""The house: rooms in layers, imports that run down, and the README's picture of it."""

import ast
import re
from pathlib import Path

import pytest

import closure_jax

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "closure_jax"

LAYERS = (
    ("commands",),
    ("bench",),
    ("pages",),
    ("evaluation",),
    ("training",),
    ("pretrained",),
    ("workdir",),
    ("config",),
    ("data",),
    ("problems",),
    ("coupling",),
    ("closure",),
    ("physics", "models", "transport", "latent"),
    ("parallel",),
    ("files", "interrupts", "random"),
    ("errors",),
)
"""Rooms from the top of the house to its ground; a room imports from layers below its own, and from itself."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imported_rooms(file: Path) -> set[str]:
    """Rooms that a module imports anywhere in it, also inside functions; 'closure_jax' is the face."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "closure_jax":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {(name + ["closure_jax"])[1] for name in names if name[0] == "closure_jax"}
    return found


def room_of(file: Path) -> str:
    """The entry of the package's top level that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if room_of(file) not in ("__init__", "__main__")]


def test_every_room_has_a_place():
    assert {room_of(file) for file in FILES} == LEVEL.keys()


@pytest.mark.parametrize("room", LEVEL)
def test_imports_run_down(room):
    for file in FILES:
        if room_of(file) != room:
            continue
        for other in imported_rooms(file) - {room}:
            if other == "closure_jax":  # the face: the version, and `load`, which imports when it is called
                continue
            assert other in LEVEL, f"{file.relative_to(REPOSITORY)} imports {other}, which is no room"
            assert LEVEL[other] > LEVEL[room], f"{file.relative_to(REPOSITORY)} imports up, or its neighbour: {other}"


def test_the_top_level_is_short():
    entries = [entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= 24


def test_the_readme_shows_every_room():
    picture = re.search(r"## Layout\n+```\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.S)
    assert picture is not None
    shown = set(re.findall(r"^  (\w+)(?:/|\.py)", picture.group(1), flags=re.M))
    assert shown == LEVEL.keys()


def test_the_face_tells_type_checkers_what_it_imports():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0)
    told = {alias.name: node.module for node in imports for alias in node.names if node.module != "typing"}
    assert told == closure_jax._WHERE
    assert set(closure_jax.__all__) == {*closure_jax._WHERE, "__version__"}

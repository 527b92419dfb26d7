"""The limits of the code: short files and functions, no circles, one meaning for a name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "stillspeak"

MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 600, 80, 8
"""Lines of a file, lines of a function without its docstring, parameters of a function."""

PUBLIC_KEYWORDS = {
    "data.prepare.prepare",
    "media.video_writer.write_video",
    "stream.StreamSession.__init__",
}
"""Public functions with more parameters, all but the first few by keyword; so may commands."""


def modules() -> dict[str, ast.Module]:
    """All modules by name, such as ``stillspeak.media.audio``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return found


MODULES = modules()


def functions(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions with their qualified names."""
    for node in ast.iter_child_nodes(tree):
        inner = f"{name}.{node.name}" if hasattr(node, "name") else name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner, node
        yield from functions(node, inner)


def lines(node: ast.FunctionDef) -> int:
    first = node.body[0]
    doc = ast.get_docstring(node, clean=False) is not None
    return node.end_lineno - node.lineno + 1 - doc * (first.end_lineno - first.lineno + 1)


def parameters(node: ast.FunctionDef) -> int:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(one.arg not in ("self", "cls") for one in every)


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that a module imports when it runs, wherever in it."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            pending += ast.iter_child_nodes(node)


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other."""
    reach = {name: set(targets) for name, targets in graph.items()}
    grown = True
    while grown:
        grown = False
        for targets in reach.values():
            more = set().union(*(reach.get(one, set()) for one in targets)) - targets
            targets |= more
            grown = grown or bool(more)
    found = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in reach}
    return [set(one) for one in found if len(one) > 1]


def graph_of(depth: int | None) -> dict[str, set[str]]:
    """Which module imports which; with a depth, which folder imports which."""
    graph: dict[str, set[str]] = defaultdict(set)
    for name, tree in MODULES.items():
        own = ".".join(name.split(".")[:depth])
        for target in imports(tree):
            other = ".".join(target.split(".")[:depth])
            if other in MODULES and other != own:
                graph[own].add(other)
    return graph


def named(name: str) -> str:
    return name.removeprefix("stillspeak.")


def test_files_are_short() -> None:
    long = {
        named(name)
        for name, tree in MODULES.items()
        if tree.body and (tree.body[-1].end_lineno or 0) > MAX_FILE
    }
    assert long == set()


def test_functions_are_short_and_take_few_parameters() -> None:
    found = set()
    for module, tree in MODULES.items():
        for name, node in functions(tree, named(module)):
            if lines(node) > MAX_FUNCTION:
                found.add(name)
            is_command = name.startswith("cli.") and not node.name.startswith("_")
            if parameters(node) > MAX_PARAMETERS and not is_command | (name in PUBLIC_KEYWORDS):
                found.add(name)
    assert found == set()


def test_no_module_and_no_folder_imports_itself_through_others() -> None:
    assert circles(graph_of(None)) == []
    assert circles(graph_of(2)) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [{"b", "c"}]


def test_the_name_of_a_class_means_one_thing() -> None:
    homes = defaultdict(set)
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(named(module))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}

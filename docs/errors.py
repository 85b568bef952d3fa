"""Makes docs/errors.md: `python docs/errors.py > docs/errors.md`; a test holds the two together."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "closure_jax"
HEAD = """# What is refused, and what to do

A mistake ends a command with status 2 and one line on stderr, `closure_jax: error:` and one of the messages below; a function
of the library raises it as `closure_jax.errors.UserError`. Each names the value, what was expected and, after a semicolon or a
colon, the remedy. What stands in braces is filled in. A field's rule gets its name in front:
`--config.SECTION.FIELD=VALUE: expected ...`.

This page is made from the code by `python docs/errors.py > docs/errors.md`.
"""


def text_of(node: ast.expr) -> str | None:
    """A message with its fields in braces, None where it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            texts = [text_of(part) or "{...}" for part in parts]
            return "".join(texts)
        case ast.FormattedValue(value=value):
            name = ast.unparse(value)
            return "{" + (name if len(name) <= 40 else "...") + "}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (text_of(left) or "{...}") + (text_of(right) or "{...}")
        case ast.IfExp(body=body, orelse=other):
            return f"{text_of(body) or '{...}'} / {text_of(other) or '{...}'}"
        case _:
            return None


def messages(file: Path) -> list[str]:
    """Messages of the errors that a module raises, in order."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        place = {"UserError": 0, "check": 1, "refuse": 0}.get(name)
        if place is None or len(node.args) <= place:
            continue
        text = text_of(node.args[place])
        if text and " " in text:
            found.append((node.lineno, " ".join(text.split())))
    return list(dict.fromkeys(text for _, text in sorted(found)))


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for file in sorted(PACKAGE.rglob("*.py"), key=lambda file: (file.parent != PACKAGE, file)):
        found = messages(file)
        if found:
            lines.append(f"## `{file.relative_to(PACKAGE.parent).as_posix()}`\n")
            lines += [f"- {text.replace('<', '&lt;').replace('*', chr(92) + '*')}" for text in found]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")

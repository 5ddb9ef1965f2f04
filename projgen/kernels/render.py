"""The strict template environment, and the text of an emitted block."""

from __future__ import annotations

from functools import cache

import jinja2

from projgen import resources
from projgen.kernels.record import Block


@cache
def environment() -> jinja2.Environment:
    """Templates with strict variables."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML
    )


@cache
def render_block(block: Block) -> str:
    """The text of an emitted kernel block."""
    return environment().get_template(f"kernels/{block.template}").render(dict(block.parameters))

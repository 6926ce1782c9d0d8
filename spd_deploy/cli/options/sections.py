"""A command whose many options stand under headings in its help."""

from collections.abc import Mapping
from typing import Any

import click


class Sectioned(click.Command):
    """Shows its options in the order they are declared, under a new heading where one begins.

    ``headings`` names, for the first option of each section, what stands above it.
    """

    def __init__(self, *args: Any, headings: Mapping[str, str], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with its heading, as click does for its one section."""
        heading, sections = "Options", dict[str, list[tuple[str, str]]]()
        for parameter in self.get_params(ctx):
            heading = self.headings.get(parameter.name or "", heading)
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(heading, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

"""The flags of a command under headings in its help: a long list is hard to read."""

from __future__ import annotations

import click

OTHER = "Other"

# In this order, each flag by the name that its command gets it under.
_GROUPS = {
    "Recipients": (
        "recipients to together where suppress encoding address_column sheet header_row keep_space allow_duplicates"
        " group_by allow_empty max_invalid row address sample whole only follow_up unless"
    ),
    "Message": "sender subject text html attach headers values",
    "Relay": "relays urls connections password_stdin",
    "Pace": "rate quota window start send_at timezone ramp canary wait processes retry limit paced lift_pause",
    "Safety": (
        "yes expect dry_run redirect_to test_to strict ignored allow_stale_intake online all_domains"
        " in_doubt retry_rejected retry_expired start_over only_unreached"
    ),
    "Output": "folder in_browser store detach outbox reports mode json as_json metrics_port trace_to notify",
}
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names.split()}


class GroupedCommand(click.Command):
    """A command whose help has its flags under headings; one that is in no group is under the last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In place of one section for all."""
        found: dict[str, list[tuple[str, str]]] = {group: [] for group in (*_GROUPS, OTHER)}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)) is not None:
                found[_GROUP_OF.get(option.name or "", OTHER)].append(record)
        for group, records in found.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)

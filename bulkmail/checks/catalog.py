"""The table of all checks: what each finds, why it matters, how it is fixed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bulkmail.checks import bulk_checks, list_checks, message_checks, online_checks
from bulkmail.checks.check_finding import Finding, Severity
from bulkmail.checks.evidence import Check, Evidence
from bulkmail.model.errors import ConfigError
from bulkmail.text import suggest

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

NO_RELAY = "no-relay-for-row"
SUPPRESSION_ENTRY = "suppression-entry"
INTAKE_STALE = "intake-stale"

CHECKS: tuple[Check, ...] = (
    Check(
        "bad-row", _W, "rows without a usable address",
        "Nothing can be sent for such a row; it is skipped and listed in the report.",
        "correct the value, or remove the row", list_checks.bad_row,
    ),
    Check(
        "many-invalid", _E, "more than 10 % of the rows (max_invalid; at least 3) without usable address or message",
        "A list is rarely this bad by itself; perhaps a column moved or an export failed.",
        "correct the list; if it is right, raise the limit with --max-invalid 40%", list_checks.many_invalid,
    ),
    Check(
        "row-does-not-render", _W, "rows for which the template cannot be rendered; an error if no row can be rendered",
        "These rows get no message rather than an incomplete one.",
        "correct the name in the message or the column in the list; "
        "{{ name | default('…') }} sets a default", list_checks.row_does_not_render,
    ),
    Check(
        "subject-empty", _W, "rows with an empty subject; an error if every row has one",
        "A message without a subject looks like spam; these rows get no message.",
        "fill in the cell, or write {{ name or '…' }} in the subject", list_checks.subject_empty,
    ),
    Check(
        "subject-missing", _W, "message files without a subject",
        "People delete such mail unread, and filters treat it as spam.",
        "add a SUBJECT: line above the empty line, or send with --subject",
        message_checks.subject_missing,
    ),
    Check(
        "attachment-missing", _W, "files named by rows that cannot be sent; an error if this affects every row",
        "These rows get no message.",
        "put the file in the folder that the row names, or correct the cell", list_checks.attachment_missing,
    ),
    Check(
        NO_RELAY, _E, "mail that none of the relays accepts",
        "It would never be sent.",
        'add their domains to the recipients (or senders) of a relay, or "*" for all others', lambda evidence: (),
    ),
    Check(
        SUPPRESSION_ENTRY, _E, "entries of a suppression list that are neither an address nor a @domain",
        "Recipients who asked for no mail would get some.",
        "correct the line: one or several addresses, or @example.com for a domain; # begins a comment",
        list_checks.suppression_entry,
    ),
    Check(
        "unknown-name", _W, "names in the message that no column has, in parts that no row has used yet",
        "The first row that uses such a part fails.",
        "correct the name in the message, or add the column", list_checks.unknown_name,
    ),
    Check(
        "ambiguous-column", _E, "names in the message that several columns of the list have",
        "It is not clear which value to use.",
        "rename all but one of these columns in the list", list_checks.ambiguous_column,
    ),
    Check(
        "value-hidden", _W, "columns with the same name as a value of the campaign ([data], --set)",
        "The message uses the column and ignores the value.",
        "rename the column or the value, or use --ignore value-hidden if this is intended", list_checks.value_hidden,
    ),
    Check(
        "variants-same", _W, "variants of a message that no template distinguishes",
        "All variants are the same, so there is nothing to compare.",
        "write {% if variant == 'b' %} in a template, or remove the variants", list_checks.variants_same,
    ),
    Check(
        "empty-field", _W, "columns used in the message that are blank in some rows",
        "These messages have a gap: “Dear ,”.",
        "fill it in, or write {{ name or '…' }} in the message", list_checks.empty_field,
    ),
    Check(
        "duplicate-differs", _W, "rows of one address that differ in something that the message uses",
        "Only the first of them is sent; the data of the others is not used.",
        "--group-by email sends one message for all rows of a recipient, --allow-duplicates one for each row",
        list_checks.duplicate_differs,
    ),
    Check(
        "grouped-differs", _W, "rows that share a message (group_by) but differ in a value used only once in it",
        "The value of the first row is used, in the subject and wherever the message does not loop over rows.",
        "loop over the rows, {% for item in rows %}{{ item.… }}{% endfor %}, or make the values the same",
        list_checks.grouped_differs,
    ),
    Check(
        "hidden-row", _W, "rows hidden in the sheet, by hand or by a filter, that get the message",
        "They may have been hidden to exclude them.",
        "delete these rows, or copy the visible ones to a new sheet; use --ignore hidden-row to send to them",
        list_checks.hidden_row,
    ),
    Check(
        "cell-format", _W, "cells of a workbook that appear in the message differently from how the sheet shows them",
        "Recipients see something other than you do.",
        "set an explicit format for the column, such as yyyy-mm-dd or #,##0.00, or format it as text",
        list_checks.cell_format,
    ),
    Check(
        "dummy-cell", _W, "placeholder cells such as NULL or #N/A",
        "Recipients would read “Dear NULL”.",
        "clear the cell or fill it in", list_checks.dummy_cell,
    ),
    Check(
        "damaged-cell", _W, "cells damaged by another program: MÃ¼ller, O&#39;Brien, 4.36642E+11, ########, \ufffd",
        "Recipients would see them like this.",
        "correct the cells, or export the list again, as UTF-8 and with these columns as text",
        list_checks.damaged_cell,
    ),
    Check(
        "placeholder", _W, "{{, lorem ipsum, unfinished notes and other programs' placeholders in message or cells",
        "Recipients would see the placeholder.",
        "replace it with the intended text, or remove it", message_checks.placeholder,
    ),
    Check(
        "mistyped-address", _W, "domains that look like typos of large providers, such as gmial.com",
        "The message bounces or reaches a stranger, and many such addresses hurt your sender reputation.",
        "correct the address, or remove the row", list_checks.mistyped_address,
    ),
    Check(
        "subject-test", _W, "subjects that look like a test",
        "The mailing may not be meant for recipients yet.",
        "write the final subject", message_checks.subject_test,
    ),
    Check(
        "subject-long", _W, "subjects longer than 100 characters, and the rows that have them",
        "Mail programs show the first 40 to 80 characters in the message list.",
        "shorten it, and put the important words first", message_checks.subject_long,
    ),
    Check(
        "html-clipped", _W, "HTML bodies larger than 102 KB",
        "Gmail shows the first 102 KB only, and hides the link to unsubscribe.",
        "remove styles and comments, link to pictures, shorten the text", message_checks.html_clipped,
    ),
    Check(
        "unclosed-tag", _W, "elements that are not closed, end tags that close nothing",
        "Mail programs guess differently where they end, and the layout breaks.",
        "add the missing tag, or remove the other one", message_checks.unclosed_tag,
    ),
    Check(
        "visible-tag", _W, "tags such as <br> that recipients see as text, in plain text or escaped in a page",
        "Recipients read “<br>” instead of a new line.",
        "use the nl2br filter for cells with several lines, and remove tags from plain text and cells",
        message_checks.visible_tag,
    ),
    Check(
        "image-without-alt", _W, "pictures without alt text",
        "Many mail programs do not load pictures at first, and screen readers read the alt text.",
        'write alt="what it shows", or alt="" for decoration', message_checks.image_without_alt,
    ),
    Check(
        "image-local", _W, "pictures that are neither embedded nor on the web",
        "Recipients see an empty frame.",
        "put the file in the campaign's folder under that name, or use its web address, https://…",
        message_checks.image_local,
    ),
    Check(
        "link-empty", _W, "links without an address, or with #",
        "A click on it does nothing.",
        "write the address, or remove the link", message_checks.link_empty,
    ),
    Check(
        "link-relative", _W, "links without https:// or mailto: (/offers, www.example.com, ann@example.com)",
        "A message has no base address, so mail programs cannot resolve such a link.",
        "write the full address: https://… or mailto:…", message_checks.link_relative,
    ),
    Check(
        "link-local", _W, "links to localhost, a private network, a file",
        "They work only on your computer or network.",
        "write the public address", message_checks.link_local,
    ),
    Check(
        "link-insecure", _W, "links and pictures that begin with http:",
        "Mail programs warn about them or block them, and others on the network can read them.",
        "write https:", message_checks.link_insecure,
    ),
    Check(
        "active-content", _W, "scripts, forms, frames and objects in a page",
        "Mail programs remove them, and some treat the message as an attack.",
        "link to a web page that contains them", message_checks.active_content,
    ),
    Check(
        "attachment-empty", _W, "attachments of 0 bytes",
        "Recipients get a file that they cannot open.",
        "create the file again; it was probably copied before it was complete", message_checks.attachment_empty,
    ),
    Check(
        "invitation-attached", _W, "calendar invitations among the attachments",
        "Mail programs offer no way to reply to a plain file, and it is the same for every recipient.",
        'write calendar = "invite.ics" below [message] instead', message_checks.invitation_attached,
    ),
    Check(
        "attachment-too-big", _W, "messages over 25 MB (note: over 10 MB; error: over the relay's limit, --online)",
        "Servers reject them, and only after each whole message was sent.",
        "put the file on a web site and link to it", message_checks.attachment_too_big,
    ),
    Check(
        "free-sender", _W, "From at a free mailbox provider, for lists (List-Id) and 5,000 recipients or more",
        "These providers ask receivers to reject such mail unless it comes from their own servers.",
        "send from an address at your own domain", bulk_checks.free_sender,
    ),
    Check(
        "made-up-domain", _W,
        "an example domain (shop.example) in From, the reverse path, unsubscribe links, headers or links",
        "Servers reject such a sender, and replies cannot be delivered.",
        "use your own domain; for a rehearsal, send without --relay", bulk_checks.made_up_domain,
    ),
    Check(
        "one-click-missing", _W, "no one-click unsubscribe, for 5,000 recipients or more (note: for any list)",
        "Gmail, Yahoo and Microsoft require it of senders of 5,000 messages a day (RFC 8058).",
        "set https below [message.unsubscribe]", bulk_checks.one_click,
    ),
    Check(
        "dkim-not-aligned", _W, "no DKIM signature for From's own domain, for lists and 5,000 recipients or more",
        "DMARC passes only if the signing domain is that of From; without it, bulk mail is rejected.",
        "sign with a key of that domain: see [message.dkim] in the guide", bulk_checks.dkim_alignment,
    ),
    Check(
        "bounces-not-aligned", _W, "a reverse path at another domain than From, for lists and 5,000 recipients or more",
        "SPF counts for DMARC only if bounces go to From's own domain.",
        "set reverse_path to an address at From's domain, or sign with DKIM for it", bulk_checks.reverse_path_alignment,
    ),
    Check(
        "bounces-without-token", _N, "a reverse path without {bounce}, for lists and 5,000 recipients or more",
        "One bounce in five quotes nothing of the message; without a token it cannot be matched to its row.",
        'set reverse_path = "bounces+{bounce}@DOMAIN" and read that mailbox with bulkmail bounces',
        bulk_checks.bounce_token,
    ),
    Check(
        "key-not-served", _W, "an unsubscribe key that is not among the keys of [serve] in the user's config.toml",
        "bulkmail serve answers such a link with 404, and recipients report the message as spam instead.",
        "add the key_file of [message.unsubscribe] to keys below [serve]", bulk_checks.key_served,
    ),
    Check(
        INTAKE_STALE, _E,
        "returned mail left unread for 48 hours after a bulk campaign (warning: for 24 hours)",
        "Recipients who opt out and get the next message report it as spam; Gmail and Yahoo allow two days.",
        "run bulkmail bounces, or let bulkmail serve read [[bounces]]; --allow-stale-intake if it is read elsewhere",
        bulk_checks.intake_stale,
    ),
    Check(
        "relay-unusable", _E, "relays that cannot be reached, secured or logged in to",
        "Nothing could be sent.",
        "see the reason given; bulkmail relay URL shows more", online_checks.relay_unusable, is_online=True,
    ),
    Check(
        "dkim-key", _E, "a DKIM key in the DNS that is missing, revoked or different from the signing key",
        "Every signature fails, which is worse than having none.",
        "publish the public key under that name", online_checks.dkim_key, is_online=True,
    ),
    Check(
        "spf-missing", _W, "no SPF record for the domain that bounces go to",
        "Gmail, Yahoo and Microsoft want to know who may send for a domain.",
        "publish a TXT record that begins with v=spf1 and names your relay; its provider says how",
        online_checks.spf_missing, is_online=True,
    ),
    Check(
        "spf-broken", _W, "an SPF record that is duplicated, needs over 10 lookups, includes nothing or allows all",
        "Receivers ignore such a record or treat it as an error.",
        "correct the record", online_checks.spf_broken, is_online=True,
    ),
    Check(
        "dmarc", _W, "no DMARC record for From's domain (note where the list is none), or one with p=none (note)",
        "Gmail, Yahoo and Microsoft require one of bulk senders.",
        'publish a TXT record "v=DMARC1; p=none; rua=mailto:you@…" under that name', online_checks.dmarc,
        is_online=True,
    ),
    Check(
        "domain-without-mail", _W, "recipient domains that have no mail server or accept no mail",
        "These messages bounce, and many bounces hurt your sender reputation.",
        "correct the addresses, or remove the rows", online_checks.domain_without_mail, is_online=True,
    ),
    Check(
        "login-untried", _N, "relays that need a login, without a password",
        "The login cannot be tested before sending.",
        "set BULKMAIL_PASSWORD, or run this in a terminal", online_checks.relay_login_untried, is_online=True,
    ),
    Check(
        "dns-unanswered", _N, "DNS queries without an answer, and domains not looked up",
        "Nothing is known about these domains.",
        "try again later", online_checks.dns_unanswered, is_online=True,
    ),
    Check(
        "role-address", _N, "role addresses (info@) and automated addresses (noreply@)",
        "They are read by several people or by none; spam complaints are more likely.",
        "use a person's address if you have one", list_checks.role_address,
    ),
    Check(
        "duplicate", _N, "rows that repeat an address",
        "Each address gets one message, that of its first row.",
        "none needed; --allow-duplicates sends to them each time", list_checks.duplicate,
    ),
    Check(
        "suppressed", _N, "rows skipped because of a suppression list",
        "They asked for no mail, or their mail bounced.",
        "none needed", list_checks.suppressed,
    ),
    Check(
        "unused-column", _N, "columns that neither message nor settings mention",
        "The message may have been meant to use them.",
        "none needed if this is intended", list_checks.unused_column,
    ),
)  # fmt: skip

_BY_CODE = {check.code: check for check in CHECKS}


def judge(evidence: Evidence) -> list[Finding]:
    """Everything that the checks find, the gravest first, otherwise in the order of the table."""
    return gravest_first(finding for check in CHECKS for finding in check.findings(evidence))


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, warnings, notes; within each the order stays."""
    return sorted(findings, key=lambda finding: finding.severity.rank)


def without(findings: Iterable[Finding], ignored: Iterable[str]) -> list[Finding]:
    """The findings but for those with a code in `ignored`."""
    codes = set(ignored)
    return [finding for finding in findings if finding.code not in codes]


def softened(findings: Iterable[Finding], code: str) -> list[Finding]:
    """The findings, those with this code as warnings at most."""
    return [
        replace(finding, severity=Severity.WARNING)
        if finding.code == code and finding.severity is Severity.ERROR
        else finding
        for finding in findings
    ]


def check_code(code: str) -> str:
    """`code`, if some check has it.  Raises `ConfigError` with what may have been meant."""
    if code not in _BY_CODE:
        raise ConfigError(
            f"there is no check {code!r}{suggest(code, _BY_CODE)}", hint="docs/checks.md lists all checks"
        )
    return code


def table() -> str:
    """The checks as a table in Markdown."""
    head = "| code | severity | finds | why it matters | the fix |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{check.code}` | {check.severity.value}{' (`--online`)' if check.is_online else ''} "
        f"| {_cell(check.finds)} | {_cell(check.why)} | {_cell(check.fix)} |\n"
        for check in CHECKS
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

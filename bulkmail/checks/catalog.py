"""The table of all checks: what each finds, why it matters, how it is fixed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bulkmail.checks import bulk_checks, letter_checks, list_checks, online_checks
from bulkmail.checks.evidence import Check, Evidence
from bulkmail.checks.finding import Finding, Severity
from bulkmail.model.errors import ConfigError
from bulkmail.text import suggest

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

NO_RELAY = "no-relay-for-row"
SUPPRESSION_ENTRY = "suppression-entry"
INTAKE_STALE = "intake-stale"

CHECKS: tuple[Check, ...] = (
    Check(
        "bad-row", _W, "rows without a usable address",
        "Nobody can be written to from such a row; it is left out and named in the report.",
        "correct what is named, or take the row out", list_checks.bad_row,
    ),
    Check(
        "many-invalid", _E, "more than 10 % of the rows (max_invalid; at least 3) without usable address or message",
        "A list is seldom so bad by itself; a column has moved, or an export went wrong.",
        "correct the list; if it is as it should be, allow more with --max-invalid 40%", list_checks.many_invalid,
    ),
    Check(
        "row-does-not-render", _W, "messages that the template cannot make; an error if that is so for every row",
        "Rather than half a message, these rows get none.",
        "correct the name in the message or the column in the list; "
        "{{ name | default('…') }} says what to write instead", list_checks.row_does_not_render,
    ),
    Check(
        "subject-empty", _W, "rows whose subject comes out empty; an error if that is so for every row",
        "A message without a subject is taken for junk; these rows get none.",
        "fill in the cell, or write {{ name or '…' }} in the subject", list_checks.subject_empty,
    ),
    Check(
        "subject-missing", _W, "message files without a subject",
        "People delete such mail unread, and filters take it for junk.",
        "write SUBJECT: and what it is about above the empty line, or send with --subject",
        letter_checks.subject_missing,
    ),
    Check(
        "attachment-missing", _W, "files that rows name and that cannot be sent; an error if that is so for every row",
        "These rows get no message.",
        "put the file where the row says, or correct the cell", list_checks.attachment_missing,
    ),
    Check(
        NO_RELAY, _E, "mail that none of several relays takes",
        "It would stay behind for ever.",
        'add their domains to the recipients (or senders) of a relay, or "*" for everybody else', lambda evidence: (),
    ),
    Check(
        SUPPRESSION_ENTRY, _E, "entries of a suppression list that are no address and no @domain",
        "The people meant there would get mail that they asked not to get.",
        "correct the line: one or several addresses, or @example.com for a domain; # begins a comment",
        list_checks.suppression_entry,
    ),
    Check(
        "unknown-name", _W, "names in the message that no column has, where no row has come to yet",
        "As soon as a row comes to that part, its message fails.",
        "correct the name in the message, or add the column", list_checks.unknown_name,
    ),
    Check(
        "ambiguous-column", _E, "names in the message that several columns of the list have",
        "It is not clear whose value is meant.",
        "rename all but one of these columns in the list", list_checks.ambiguous_column,
    ),
    Check(
        "value-hidden", _W, "columns that are called like a value of the campaign ([data], --set)",
        "The message shows the column, and the value is not used.",
        "rename the column or the value; --ignore value-hidden if it is meant", list_checks.value_hidden,
    ),
    Check(
        "variants-same", _W, "variants of a message that no template tells apart",
        "All of them get the same message, and nothing can be compared.",
        "write {% if variant == 'b' %} in a template, or take variants out", list_checks.variants_same,
    ),
    Check(
        "empty-field", _W, "columns that stand in the message and are blank in some rows",
        "These messages have a gap there: “Dear ,”.",
        "fill it in, or write {{ name or '…' }} in the message", list_checks.empty_field,
    ),
    Check(
        "duplicate-differs", _W, "rows of one address that differ in something that the message uses",
        "Only the first of them is sent; what the others say is lost.",
        "--group-by email sends one message for all rows of a recipient, --allow-duplicates one for each row",
        list_checks.duplicate_differs,
    ),
    Check(
        "grouped-differs", _W, "rows that share a message (group_by) and differ in something that it has only once",
        "The first of them decides, in the subject and wherever the message does not go through rows.",
        "write it for each of the rows, {% for item in rows %}{{ item.… }}{% endfor %}, or make the rows the same",
        list_checks.grouped_differs,
    ),
    Check(
        "hidden-row", _W, "rows that a filter or a person hid in the sheet, and that get the message",
        "Whoever hid them may have meant to leave them out.",
        "delete these rows, or copy the visible ones to a sheet of their own; --ignore hidden-row if they are meant",
        list_checks.hidden_row,
    ),
    Check(
        "cell-format", _W, "cells of a workbook that stand in the message otherwise than the sheet shows them",
        "Recipients read something else than you see.",
        "give the column a format of its own, such as yyyy-mm-dd or #,##0.00, or format it as text",
        list_checks.cell_format,
    ),
    Check(
        "dummy-cell", _W, "cells such as NULL or #N/A, where a program had nothing to write",
        "People would read “Dear NULL”.",
        "empty the cell or fill it in", list_checks.dummy_cell,
    ),
    Check(
        "damaged-cell", _W, "cells that a program has damaged: MÃ¼ller, O&#39;Brien, 4.36642E+11, ########, \ufffd",
        "Recipients would read them so.",
        "correct the cells, or export the list again, as UTF-8 and with these columns as text",
        list_checks.damaged_cell,
    ),
    Check(
        "placeholder", _W, "{{, lorem ipsum, unfinished notes and other programs' placeholders in message or cells",
        "People would read what was meant to be replaced.",
        "write what is meant, or take it out", letter_checks.placeholder,
    ),
    Check(
        "mistyped-address", _W, "domains one slip away from those of large providers, such as gmial.com",
        "The message goes to nobody or to a stranger, and many such addresses spoil your name as a sender.",
        "correct the address, or take the row out", list_checks.mistyped_address,
    ),
    Check(
        "subject-test", _W, "subjects of a trial",
        "It looks as if this was not meant to go out.",
        "give the subject that people shall read", letter_checks.subject_test,
    ),
    Check(
        "subject-long", _W, "subjects of more than 100 characters, in the rows where they are",
        "Lists of mail show 40 to 80; nobody reads the rest.",
        "shorten it, and put what matters first", letter_checks.subject_long,
    ),
    Check(
        "html-clipped", _W, "pages of more than 102 KB",
        "Gmail shows the first 102 KB only, and hides the link to unsubscribe.",
        "take out styles and comments, link to pictures, write less", letter_checks.html_clipped,
    ),
    Check(
        "unclosed-tag", _W, "elements that are not closed, end tags that close nothing",
        "Each mail program guesses differently where they end; layouts fall apart.",
        "add the missing tag, or take the other out", letter_checks.unclosed_tag,
    ),
    Check(
        "visible-tag", _W, "tags such as <br> that recipients see as text, in plain text or escaped in a page",
        "Recipients read “<br>” instead of a new line.",
        "show the lines of a cell by the filter nl2br, and take tags out of plain text and cells",
        letter_checks.visible_tag,
    ),
    Check(
        "image-without-alt", _W, "pictures without alt text",
        "Many programs show no pictures at first, and people who listen to their mail see none.",
        'write alt="what it shows", or alt="" for mere decoration', letter_checks.image_without_alt,
    ),
    Check(
        "image-local", _W, "pictures that are neither brought along nor on the web",
        "Recipients see an empty frame.",
        "put the file into the campaign's folder under that name, or give its address on the web, https://…",
        letter_checks.image_local,
    ),
    Check(
        "link-empty", _W, "links without an address, or with #",
        "Whoever clicks gets nowhere.",
        "write the address, or take the link out", letter_checks.link_empty,
    ),
    Check(
        "link-relative", _W, "links without https:// or mailto: (/offers, www.example.com, ann@example.com)",
        "A mail is on no web site: mail programs do not know where such a link leads.",
        "write the whole address: https://… or mailto:…", letter_checks.link_relative,
    ),
    Check(
        "link-local", _W, "links to localhost, a private network, a file",
        "They work on your computer and nowhere else.",
        "write the public address", letter_checks.link_local,
    ),
    Check(
        "link-insecure", _W, "links and pictures that begin with http:",
        "Mail programs warn of them or do not show them; anybody on the way can read along.",
        "write https:", letter_checks.link_insecure,
    ),
    Check(
        "active-content", _W, "scripts, forms, frames and objects in a page",
        "Mail programs take them out, and some take the message for an attack.",
        "link to a page that has them", letter_checks.active_content,
    ),
    Check(
        "attachment-empty", _W, "attached files of 0 bytes",
        "Recipients get a file that they cannot open.",
        "write the file again; it was probably copied before it was complete", letter_checks.attachment_empty,
    ),
    Check(
        "invitation-attached", _W, "invitations to an appointment among the attachments",
        "Mail programs offer no answer to a plain file, and it is the same for every recipient.",
        'write calendar = "invite.ics" below [message] instead', letter_checks.invitation_attached,
    ),
    Check(
        "attachment-too-big", _W, "messages over 25 MB (note: over 10 MB; error: over what the relay takes, --online)",
        "Servers refuse them, each after the whole message was sent.",
        "put the file on a web page and link to it", letter_checks.attachment_too_big,
    ),
    Check(
        "free-sender", _W, "From at a provider of free mailboxes, for lists (List-Id) and 5,000 recipients or more",
        "Those providers tell everybody to refuse such mail when it does not come from their own servers.",
        "write from an address at a domain of your own", bulk_checks.free_sender,
    ),
    Check(
        "made-up-domain", _W,
        "From, bounces, unsubscribing, a header or a link at a domain for examples (shop.example)",
        "Servers refuse such a sender, and people's answers go nowhere.",
        "write your own domain; if this is a rehearsal, send without --relay", bulk_checks.made_up_domain,
    ),
    Check(
        "one-click-missing", _W, "no unsubscribing by one click, for 5,000 recipients or more (note: for any list)",
        "Gmail, Yahoo and Microsoft demand it of whoever writes to 5,000 people a day (RFC 8058).",
        "set https below [message.unsubscribe]", bulk_checks.one_click,
    ),
    Check(
        "dkim-not-aligned", _W, "no DKIM signature for From's own domain, for lists and 5,000 recipients or more",
        "DMARC passes only if the domain that signs is that of From; without, bulk mail is refused.",
        "sign with a key of From's domain: see [message.dkim] in the guide", bulk_checks.dkim_alignment,
    ),
    Check(
        "bounces-not-aligned", _W, "a reverse path at another domain than From, for lists and 5,000 recipients or more",
        "SPF counts for DMARC only if bounces go to From's own domain.",
        "set reverse_path to an address at From's domain, or sign with DKIM for it", bulk_checks.reverse_path_alignment,
    ),
    Check(
        "bounces-without-token", _N, "a reverse path without {bounce}, for lists and 5,000 recipients or more",
        "A fifth of all bounces quote nothing of the message: without a token they cannot be matched to its row.",
        'set reverse_path = "bounces+{bounce}@DOMAIN" and read that mailbox with bulkmail bounces',
        bulk_checks.bounce_token,
    ),
    Check(
        "key-not-served", _W, "an unsubscribe key that is not among the keys of [serve] in the user's config.toml",
        "bulkmail serve answers such a link with 404, and the recipient reports the message as spam instead.",
        "add the key_file of [message.unsubscribe] to keys below [serve]", bulk_checks.key_served,
    ),
    Check(
        INTAKE_STALE, _E,
        "mail that came back and was not read for 48 hours after a bulk campaign (warning: for 24 hours)",
        "Recipients who opt out and get the next message report it as spam; Gmail and Yahoo allow two days.",
        "run bulkmail bounces, or have bulkmail serve read [[bounces]]; --allow-stale-intake if it is read elsewhere",
        bulk_checks.intake_stale,
    ),
    Check(
        "relay-unusable", _E, "relays that cannot be reached, secured or logged in to",
        "Nothing could be sent.",
        "see what stands there; bulkmail relay URL says more", online_checks.relay_unusable, is_online=True,
    ),
    Check(
        "dkim-key", _E, "a DKIM key in the DNS that is missing, revoked or another than the one that signs",
        "Every signature is found false, which is worse than none.",
        "publish the public half of the key under that name", online_checks.dkim_key, is_online=True,
    ),
    Check(
        "spf-missing", _W, "no SPF record for the domain that bounces go to",
        "Gmail, Yahoo and Microsoft want to know who may send for a domain.",
        "publish a TXT record that begins with v=spf1 and names your relay; its provider says how",
        online_checks.spf_missing, is_online=True,
    ),
    Check(
        "spf-broken", _W, "an SPF record that is there twice, takes over 10 look-ups, includes nothing, allows all",
        "Receivers treat such a record as none, or as a fault.",
        "correct the record", online_checks.spf_broken, is_online=True,
    ),
    Check(
        "dmarc", _W, "no DMARC record for From's domain (note where the list is none), or one with p=none (note)",
        "Gmail, Yahoo and Microsoft demand one of whoever writes to many.",
        'publish a TXT record "v=DMARC1; p=none; rua=mailto:you@…" under that name', online_checks.dmarc,
        is_online=True,
    ),
    Check(
        "domain-without-mail", _W, "domains of recipients that have no mail server or say that they take no mail",
        "These messages come back, and many of them spoil your name as a sender.",
        "correct the addresses, or take the rows out", online_checks.domain_without_mail, is_online=True,
    ),
    Check(
        "login-untried", _N, "relays that want a login, with no password at hand",
        "Whether the login works will show when you send.",
        "set BULKMAIL_PASSWORD, or run this in a terminal", online_checks.relay_login_untried, is_online=True,
    ),
    Check(
        "dns-unanswered", _N, "questions to the DNS without an answer, domains that were not asked about",
        "Nothing is known about these.",
        "try again later", online_checks.dns_unanswered, is_online=True,
    ),
    Check(
        "role-address", _N, "addresses of offices (info@) and machines (noreply@)",
        "Several people read them or nobody; complaints are more likely.",
        "write to a person where you know one", list_checks.role_address,
    ),
    Check(
        "duplicate", _N, "rows that repeat an address",
        "Each address gets one message: that of its first row.",
        "nothing needs doing; --allow-duplicates writes to them each time", list_checks.duplicate,
    ),
    Check(
        "suppressed", _N, "rows that a list of suppressed addresses leaves out",
        "They asked not to be written to.",
        "nothing needs doing", list_checks.suppressed,
    ),
    Check(
        "unused-column", _N, "columns that neither message nor settings mention",
        "Perhaps the message was to use them.",
        "nothing needs doing if that is meant", list_checks.unused_column,
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
            f"there is no check {code!r}{suggest(code, _BY_CODE)}", hint="docs/checks.md has them all in a table"
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

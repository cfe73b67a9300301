"""What a refusal is about, by its words: who or what it names, and whether it speaks of a limit."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from bulkmail.model import lexicon
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.lexicon import Words, any_of
from bulkmail.model.outcome import Reply, Stage

# -- The subjects that a refusal may name, and the words that name us, as `lexicon` has those of others.


class Subject(Enum):
    """Who or what a refusal is about."""

    UNKNOWN = "nothing that we recognise"
    RECIPIENT = "the recipient"
    CONTENT = "the message"
    SENDING = "how much we send"
    SENDER = "the sender address"
    VERIFICATION = "a sender or account that is not verified"
    ACCOUNT = "our account"
    CLIENT = "our host or IP address"
    LOGIN = "the login"
    RELAYING = "the permission to relay"
    BLOCK_LIST = "a block list"
    AUTHENTICATION = "the SPF, DKIM or DMARC of our domain"
    HINTED = "us, by a hint only"
    UNSTATED = "a policy, without saying whose fault it is"


_UN = r"(?:not|never|un)(?: (?:been|be|yet|currently|a|an|\w+ly|yet been|your))* ?"
_IS_REFUSED = (
    r"(?:reject\w*|refus\w*|den(?:ied|y|ies|ial)|block\w*|bann?\w*|barr?ed|suspend\w*|disabl\w*|deactivat\w*"
    r"|lock\w*|restrict\w*"
    r"|forbid\w*|prohibit\w*|disallow\w*|invalid|bad|fail\w*|mismatch\w*|unknown|unauthori[sz]ed|unverified"
    r"|unconfirmed"
    r"|unregistered|unresolvable|unroutable|unrecogni[sz]ed|not|no|without|must|required?|needs?|missing|does"
    r"|expired|terminated|closed|frozen|limited"
    r"|on hold|under review|pending|inactive|blacklist\w*|spam\w*|abus\w*|compromis\w*|paused|stopped"
    r"|violat\w*|untrusted|illegal|malformed|only|unable|revoked|withdrawn|cancel+ed|negative|insufficient|lapsed"
    r"|exhausted|used up|depleted|(?:run|ran) out"
    r"|exceeded|off|on ?hold|discontinued|halted|ended)"
)
REFUSED = Words(rf"\b(?:{_IS_REFUSED}|un\w+ed|suspension|non|low|poor|too \w+)\b")

_WHO = (
    r"(?:account|accounts|domain|domains|identit(?:y|ies)|sender|senders|profile|signature|organi[sz]ation"
    r"|company|website|site|service|email address|user|customer|sender id|ownership)"
)
_DONE = (
    r"(?:verified|confirmed|activated|active|validated|approved|registered|provisioned|enabled|onboarded"
    r"|completed|set up|configured|authenticated domain|proven|proved)"
)

# Needs no other word: a refusal that says it means us.
NAMED: tuple[tuple[Subject, Words], ...] = (
    (
        Subject.AUTHENTICATION,
        any_of(
            r"\b(?:spf|dkim|dmarc|arc|domain ?keys)\b|\bsender policy framework\b"
            r"|\bdesignated? (?:\w+ ){0,3}senders?\b",
            r"\b(?:domain|message|mail|email|sender) (?:level )?(?:authentication|alignment)\b|\bauthentication level\b"
            r"|\bunauthenticated (?:e?mails?|messages?)\b|\b(?:fail\w*|not|no|none)(?: \w+)? align(?:ment|ed)\b",
            r"\bp ?= ?(?:reject|quarantine)\b|\bsignature (?:check|verification|of)\b|\b[ds] ?= ?~",
        ),
    ),
    (
        Subject.BLOCK_LIST,
        any_of(
            r"\breputation of (?:the |your |this )?(?:\w+ )?(?:senders?|ip|ipaddr|domain|client|host|mta|server"
            r"|network)\b",
            r"\b(?:ip|ipaddr|senders?|domain|sending|mta s?|client|server|host|network) (?:or \w+ )?reputation\b"
            r"|\breputation sender\b",
        ),
    ),
    (
        Subject.CONTENT,
        any_of(
            r"\b(?:(?:sur|u)ribl|surbl)\b(?!.{0,20}\bsenders?\b)|\b(?:url|uri)s?\b"
            r"|(?<!by the )(?<!use the )(?<!click the )\blinks?\b"
            r"|\bvirus\b|\bmalware\b|\bphish\w*"
            r"|\battachments?\b|\binfected\b",
            r"\b(?:message|mail|email|body) (?:content|text)\b|\bcontent (?:filter|reject|restrict|block"
            r"|polic|scan|is)|\bmessage (?:is|was|looks?) (?:like )?(?:spam|considered|classified|likely)",
            r"\bunsolicited\b.{0,40}\b(?:message|mail|email|bulk)\b(?<!rate)|\blikely (?:spam|unsolicited)"
            r"|\bspam (?:message|content|detected|score)",
        ),
    ),
    (
        Subject.RELAYING,
        any_of(
            r"\b(?:open )?relay(?:s|ed|ing)?\b",
            r"\b(?:deliver\w*|mail|messages?) (?:to )?(?:outside|beyond) (?:of )?(?:our|this|the)\b",
            r"(?<!from )\b(?:foreign|external|outside|remote|non ?local) (?:domains?|destinations?|recipients?"
            r"|addresses)\b",
            r"\b(?:not|never) (?:\w+ )?forward(?:ed|ing)?\b.{0,40}\b(?:mail|messages?|domains?)\b",
            r"\b(?:accept|deliver|take)\w* (?:\w+ ){0,2}(?:for|to) (?:\w+ )?(?:local|own|hosted)"
            r" (?:users|domains|recipients|mailboxes)\b",
            r"\brcpthosts?\b|\bnot an? (?:\w+ ){0,2}gateway\b|\bnot (?:a )?local host\b|\bdo not handle mail for\b"
            r"|\bnon ?accepted domain|\bnot (?:an? )?(?:accepted|local"
            r"|hosted) (?:recipient )?domain\b",
        ),
    ),
    (
        Subject.LOGIN,
        any_of(
            r"\b(?:signed|logged) ?(?:in|on) (?:members|users|customers|clients|persons|people)\b",
            r"\banonymous\b|\bunauthenticated\b|\bnot (?:been |yet )?(?:authenticated|logged (?:in|on)|signed in)\b"
            r"|\bnot authenticate\b",
            r"\baut[eh]\w+ (?:smtp )?(?:requise|obligatoire|invalide|n[eé]cessaire|richiesta|obbligatoria|requerida"
            r"|obligatoria"
            r"|necess[aá]ria|exigida|erforderlich|ben[oö]tigt|fehlgeschlagen|vereist)\b|\banmeldung erforderlich\b",
            r"\b(?:fail(?:ed|ures?)?|bad|wrong|invalid) (?:of )?(?:auth\w*|log ?ins?|log ?ons?)\b",
            r"\bauth\w*(?: \w+)? (?:is |was |has |are )?(?:\w+ly )?(?:required|needed|necessary|mandatory"
            r"|expected|missing|failed|failure|disabled|expired|first|before)",
            r"\b(?:requires?|needs?|must|please|should|have to|has to|need to|without|only|no"
            r"|missing)\b.{0,40}\b(?:auth|authenticat\w+|log(?:ged)? ?ins?|log ?on|sign(?:ed)? ?in)\b",
            r"\blog ?(?:in|on) (?:first|required|needed|before)|\b(?:first|before)\b.{0,30}\b(?:log ?in"
            r"|authenticat\w*)",
            r"\b(?:and|please|to) (?:log|sign) ?in\b|\bport (?:587|465)\b"
            r"|\b(?:keys?|tokens?)\b.{0,20}\b(?:revoked|expired|invalid|withdrawn)\b",
            r"\b(?:api|access|smtp) (?:keys?|tokens?)\b",
            r"\b(?:credentials?|passwords?|user ?names?)\b|\bpop3? (?:before|first|auth)"
            r"|\bcheck (?:your )?(?:new )?mail first\b",
            r"\b(?:tls|ssl|starttls|encrypt\w+)\b.{0,30}\b(?:required|needed|first|mandatory|must)|\b(?:must"
            r"|require\w*|need\w*)\b.{0,30}\b(?:tls|ssl|starttls|encrypt\w+)\b",
        ),
    ),
    (
        Subject.BLOCK_LIST,
        any_of(
            r"\b(?:black|block|deny|ban|drop|reject|abuse|reputation) ?list",
            r"\bsperrliste\b|\bschwarze\w* liste\b|\bliste noire\b|\blista (?:nera|negra)\b",
            r"\blisted (?:in|on|at|by|with|as|for|~|under)\b|\bis listed\b|\blisted ~|\b(?:on|in) (?:our|the"
            r"|a|an|their|~) (?:\w+ ){0,3}(?:block|black|rbl|spam) ?(?:list)?\b",
            r"\bblocked using\b(?!.{0,20}(?:filter|polic))|\bblocked (?:via|through|because of|due to|for"
            r"|by) (?:\w+ ){0,3}(?:~|spam|abuse|reputation|ipaddr)",
            r"\b(?:spamhaus|spamcop|sorbs|uceprotect|sender ?score|invaluement|abusix|spfbl|mailspike|dnsbls?"
            r"|dnswl|rbls?|psbl|cbl|sbl|xbl|pbl|css|bl)\b",
            r"\breputation\b",
        ),
    ),
    (
        Subject.VERIFICATION,
        any_of(
            rf"\b{_WHO}\b.{{0,60}}\b{_UN}{_DONE}\b",
            r"\b(?:account|identity|domain|sender|(?:sending|from) address|profile|service)\b.{0,30}\b(?:must|needs?"
            r"|has|have|required?|requires|awaits?|awaiting|pending|waiting)\b.{0,30}\b(?:verif\w*|confirm\w*"
            r"|activat\w*"
            r"|validat\w*|approv\w*|review)",
            rf"\b(?:unverified|unconfirmed|unregistered|unapproved|inactive|non ?verified) (?:\w+ )?{_WHO}\b",
            r"\b(?:activate|verify|confirm|validate|register|complete) (?:your|the|this|account)\b"
            r"|\bactivation (?:is )?(?:required|pending|needed)|\bidentit(?:y|ies)\b.{0,40}\bfail",
            r"\b(?:first|please) (?:confirm|verify|validate|activate)\b",
            r"\bverified (?:sender|identit|domain|from)|\b(?:sender|from) (?:signature|identit)|\bsandbox mode\b",
        ),
    ),
    (
        Subject.SENDER,
        any_of(
            r"\b(?:logged in|authenticated) (?:account|user|customer|login)\b|\bbatv\b|\bpurported responsible\b"
            r"|\bsender ?filter",
            r"\b(?:exp[eé]diteur|[eé]metteur|absender\w*|remitente|mittente|remetente|afzender)\b",
            rf"\bsending (?:address|domain|identity)\b.{{0,40}}\b{_IS_REFUSED}\b",
            rf"\bsenders? (?:address|domain|email|identity|name|user|account|id|verif\w+|~"
            rf"|@)? ?.{{0,40}}\b{_IS_REFUSED}\b(?<!spam)(?<!only)(?<!required)",
            r"\byou are not (?:an?|our|one of our) (?:\w+ )?(?:customer|client|user)s?\b"
            r"|\bsend(?:ing)?(?: \w+)? from\b.{0,40}\b(?:address(?:es)?|domains?|identit(?:y|ies)|own)\b",
            r"\bnot (?:a |an )?(?:registered|authori[sz]ed) (?:\w+ )?(?:user|customer|sender|client)\b|\bfrom: ",
            r"\b(?:bad|bogus|invalid|blocked|banned|unauthori[sz]ed|unknown|forbidden|refus\w+|reject\w+"
            r"|denied|spoofed|fake|forged|suspicious|untrusted|malformed) (?:\w+ )?(?:senders?|from"
            r"|return path|mail ?from|originator)\b",
            r"\b(?:from|envelope|return path|reply to|originat\w*)(?: (?:header|field|address|line|domain"
            r"|email|sender|from))+\b.{0,60}"
            rf"\b(?:{_IS_REFUSED}|match\w*|differ\w*)\b",
            r"\bmail ?from\b.{0,60}\b(?:not|reject\w*|refus\w*|den\w+|invalid|match|differ\w*|must)\b"
            r"|\bverify failed\b|\bcallout\b",
            r"\b(?:not|never|no longer|nor|un)(?: be| been| currently| yet)? ?(?:allowed|permitted"
            r"|authori[sz]ed|entitled|able|eligible|privileged|enabled|approved|cleared) (?:to|for) (?:send"
            r"|sending|submit|mail|use|originate|transmit|out|perform)",
            r"\b(?:permissions?|rights?|privileges?|authority|allowance) (?:to|for) (?:send|use|submit|mail)"
            r"|\bsend(?:ing)? as\b|\bon behalf of\b|\bclaims to be\b|\bspoof\w*|\bimpersonat\w*|\bforg(?:ed|ery|ing)\b",
            r"\bas @|\bnot (?:be )?own(?:ed|er|s)?\b|\bdoes not (?:own|belong)\b|\bnot belong\b"
            r"|\bown(?:ed)? by (?:another|other|a different)",
            r"\bout ?(?:going|bound)\b.{0,40}\b(?:block\w*|suspend\w*|disab\w*|spam\w*|denied|reject\w*"
            r"|restrict\w*|prohibit\w*|paused|stopped|not|ban\w*|forbid\w*|frozen|held)",
            r"\b(?:block\w*|suspend\w*|disab\w*|restrict\w*|paused|stopped|spam\w*"
            r"|bann?ed)\b.{0,30}\b(?:out ?(?:going|bound)|from sending|sending)\b",
            r"\bsending\b.{0,30}\b(?:is|has been|was|are|were|been)? ?(?:disab\w*|block\w*|suspend\w*|paused"
            r"|prohibit\w*|not|restrict\w*|denied|stopped|frozen|forbidden)\b",
            r"\bsubmitter\b|\bnull sender\b|\bsender (?:is )?(?:empty|spam\w*)\b|\bdomain of sender\b",
        ),
    ),
    (
        Subject.CLIENT,
        any_of(
            r"\b(?:spamming|abusive|abusing|rogue|compromised|infected|suspicious|untrusted)"
            r" (?:host|server|client|ip|network)\b",
            r"\b(?:adresse|indirizzo|direcci[oó]n|endere[cç]o) ip\b|\bip adresse\b",
            r"\bend user (?:line|range|ip|network)|\bopen proxy\b|\bnot (?:be )?(?:allowed|permitted"
            r"|authori[sz]ed) to connect\b|\byour isp\b",
            r"\bclient (?:host|ip|address|ipaddr|hostname|was|is|does|not)\b|\bhelo\b|\behlo\b|\brdns\b"
            r"|\bptr\b|\breverse (?:dns|lookup|mapping|hostname|name|address|map)",
            r"\bdynamic\w* (?:ip|address|host|range|~|pool)|\bdial ?up\b|\bresidential\b|\bgeneric (?:ip"
            r"|hostname|rdns)|\bfcrdns\b|\bforward confirmed\b",
            r"\b(?:your|our|the|this|sending|connecting|remote|source|originating|sender s?)? ?(?:mail |smtp "
            r"|email |sending )?(?:ip address(?:es)?|ips?|ip range|ipaddr|hostname|host name)\b"
            rf".{{0,60}}\b{_IS_REFUSED}\b",
            rf"\b{_IS_REFUSED}\b.{{0,30}}\b(?:ip|ips|ip address|ipaddr|your (?:host|server|isp|network|mta"
            rf"|system)|hostname)\b",
        ),
    ),
)

# Needs a refusal beside it, or it could be said of anybody.
NAMED_WITH_REFUSAL: tuple[tuple[Subject, Words], ...] = (
    (
        Subject.CONTENT,
        any_of(r"\b(?:like|as|considered|probabl\w+|possible|is|being|your) spam\b|\bspam (?:like|filter)\b"),
    ),
    (
        Subject.ACCOUNT,
        any_of(
            r"\b(?:your|smtp|sender|senders?|sending|customer|trial|this tenant s?|relay|mail|api|user s?"
            r"|hosting|client)(?: \w+)? (?:account|subscription|plan|tenant|license|licence|mailbox|user)\b",
            r"\b(?:smtp|sending|submission|relay|outgoing) (?:service|access|feature)\b|\b(?:mail"
            r"|message) submission\b",
            r"\bterms (?:of (?:use|service)|and conditions)\b|\bsubscribed to (?:\w+ ){0,2}(?:service|ses|plan)\b",
            r"\b(?:balance|contract|bills?)\b",
            # what only a service that is paid for sending has
            r"\b(?:free|test|testing|trial|demo|developer|starter|basic) (?:accounts?|plans?|tiers?|purposes"
            r"|e?mails?|mode"
            r"|users?)\b|\bupgrade\b|\b(?:control|admin\w*) panel\b|\bdashboard\b|\baccount settings\b|\barn:"
            r"|\bconfiguration sets?\b|\bmessage streams?\b|\b(?:sub ?account|workspace|project|api)\b|\bpricing\b",
            r"\btenant\b|\bsubscription\b|\bbilling\b|\bpayment\b|\bcredits?\b|\binsufficient (?:funds"
            r"|balance|credit)|\binvoice\b|\boverdue\b|\bunpaid\b|\bdelinquent\b|\btrial\b",
        ),
    ),
    (
        Subject.CLIENT,
        any_of(
            r"\bmail servers? (?:at |on )?(?:~|ipaddr)",
            r"\byour (?:mail |smtp |email )?(?:host|server|system|network|isp|mta|machine|computer|connection"
            r"|mail server|country|region|provider)\b",
            r"\b(?:sending|connecting|remote|client|originating|sender) (?:mail |smtp )?(?:host|server|system"
            r"|mta|network|machine|client)\b|\bclient\b",
            r"\b(?:connections?|e?mails?|messages?|traffic) from (?:\w+ ){0,3}(?:hosts?|networks?|servers?|clients?"
            r"|ranges?|countries|locations?)\b",
            r"\bfrom (?:this|your|that|such|the|ipaddr|~)(?: \w+)? ?(?:ip|host|server|network|system|location"
            r"|country|address range|ipaddr)?\b.{0,20}\b(?:not|denied|refused|rejected|blocked|banned)\b",
        ),
    ),
    (
        Subject.SENDER,
        any_of(
            r"\byour access\b|\bsenders?\b|\bsending (?:domain|address|identity|user|email)\b"
            r"|\byour (?:email |mail |from "
            r"|sending )?(?:address|domain|email|organi[sz]ation|company|identity|name|user)\b|\bmail ?from\b"
            r"|\bfrom address\b",
            r"\b(?:e?mails?|messages?|traffic) from (?:you|your|@|~|this (?:domain|sender|address|account"
            r"|user)|that (?:domain|sender))",
        ),
    ),
)

# At the end of a message it can only be the sender's: the recipient was taken before.
OWN_MAILBOX = any_of(
    r"\bmailbox (?:is |was )?(?:unavailable|disabled|not available|suspended|locked)\b",
    r"\baccount (?:is |has been |was |put )*(?:not(?! (?:found|known|here))"
    r"|suspended|disabled|locked|blocked|inactive|closed|frozen|restricted"
    r"|terminated|deactivated|under review|on hold|paused|limited|revoked|expired|cancel+ed)\b",
)

FOR_MAILBOX = any_of(r" for (?:the |this |that |your )?(?:mailbox|user|account)\b(?= @| of @|$)")

# Enhanced codes without their first digit, RFC 3463, RFC 4954, RFC 7372 and Exchange Online's own.
CODES: dict[str, Subject] = {
    **dict.fromkeys(
        (
            ".1.7",
            ".1.8",
            ".7.27",
            ".7.60",
            ".7.501",
            ".7.502",
            ".7.503",
            ".2.251",
            ".2.252",
            ".2.253",
            ".2.254",
            ".2.255",
        ),
        Subject.SENDER,
    ),
    **dict.fromkeys((".7.3", ".7.8", ".7.11", ".7.12", ".7.57", ".7.139"), Subject.LOGIN),
    **dict.fromkeys((".7.54", ".7.64", ".7.367"), Subject.RELAYING),
    **dict.fromkeys((".7.20", ".7.21", ".7.22", ".7.23", ".7.24", ".7.26", ".7.509", ".7.515"), Subject.AUTHENTICATION),
    **dict.fromkeys((".7.25", ".7.51", ".7.606", ".7.511", ".7.512", ".7.513", ".7.514"), Subject.CLIENT),
    **dict.fromkeys((".7.705", ".7.708", ".7.750"), Subject.ACCOUNT),
}


# -- What a refusal is about, by its words: who or what it names, and whether it speaks of a limit.
#
# The subject decides, not a single word: "the user you are trying to contact is receiving mail at a rate ..." is about
# that mailbox, "message submission rate for this client ..." is about us.  Of four layers the first that fits decides:
# what names the recipient, what speaks of a limit on sending (`lexicon`), what names us, and a policy that
# names neither.


class Span(Enum):
    """For how long a limit holds."""

    SHORT = "seconds or minutes"
    UNSAID = "unsaid"
    HOUR = "an hour"
    DAY = "a day or longer"


class Meaning(NamedTuple):
    """What a refusal says.  `span` is that of a limit on sending, None where no such limit is spoken of."""

    subject: Subject
    span: Span | None = None


_LOGIN_CODES = frozenset({530, 534, 535, 538})  # RFC 4954 §6
_AFTER_RECIPIENT = frozenset({Stage.RCPT, Stage.DATA, Stage.BODY, Stage.END})


def read(reply: Reply) -> Meaning:
    """What `reply`, a refusal, is about."""
    if reply.code in _LOGIN_CODES:
        return Meaning(Subject.LOGIN)
    whole = _reason(plain(reply.text))
    text = lexicon.ADVICE.compiled.sub("", whole)
    may_name_recipient = reply.stage in _AFTER_RECIPIENT
    if reply.stage is not Stage.RCPT and not reply.enhanced:  # the recipient was taken before, or is not named yet
        text = OWN_MAILBOX.compiled.sub(" own mailbox ", text)
        text = FOR_MAILBOX.compiled.sub(" for own mailbox", text)
        whole = OWN_MAILBOX.compiled.sub(" own mailbox ", whole)
    if (framed := _framed(text)) is not None:
        return Meaning(framed)
    if may_name_recipient and _is_recipients_alone(text, reply):
        return Meaning(Subject.RECIPIENT)
    is_recipients = may_name_recipient and bool(
        lexicon.RECIPIENT.search(text) or lexicon.RECIPIENT_CODE.fullmatch(reply.enhanced)
    )
    is_theirs = is_recipients and not lexicon.OURS.search(text)
    if not is_theirs and (span := _limit(whole, stage=reply.stage)) is not None:
        return Meaning(Subject.SENDING, span)
    if is_recipients and not _is_ours_all_the_same(text, reply):
        return Meaning(Subject.RECIPIENT)
    subject = _named(whole, reply)
    if subject is Subject.UNKNOWN and may_name_recipient:
        return Meaning(_unstated(text, reply, names_address="ipaddr" in whole))
    return Meaning(subject)


def _reason(text: str) -> str:
    """What of `text` is this server's own: without the words for a code, another's reply and what went well."""
    for words in (lexicon.STANDARD, lexicon.QUOTED, lexicon.PRAISE):
        text = words.compiled.sub("", text)
    return text


def _framed(text: str) -> Subject | None:
    """Who of us the words behind "recipient address rejected:" name; None where they name the recipient or no one."""
    if (frame := lexicon.FRAME.search(text)) is None:
        return None
    words = text[frame.end() :]
    if lexicon.RECIPIENT_ALONE.search(text) or lexicon.RECIPIENT_HEAD.search(words) or lexicon.RECIPIENT.search(words):
        return None
    return next((subject for subject, named in NAMED if named.search(words) and subject in _FRAMED), None)


_FRAMED = frozenset(
    {Subject.AUTHENTICATION, Subject.BLOCK_LIST, Subject.CLIENT, Subject.LOGIN, Subject.RELAYING}
)  # "sender not allowed" there may be the recipient's wish


def _is_recipients_alone(text: str, reply: Reply) -> bool:
    """Whether this can be said of a recipient only."""
    if lexicon.RECIPIENT_RAW.search(reply.text):
        return True
    if lexicon.RECIPIENT_ALONE.search(text) and not lexicon.OWN_LIMIT.search(text):
        return True
    head, ours = lexicon.RECIPIENT_HEAD.search(text), lexicon.SENDER_ITSELF.search(text)
    if head is not None or ours is not None:  # what is said first decides
        return ours is None or (head is not None and head.start() < ours.start())
    if _has_mailbox_code(text, reply) and not lexicon.OF_SENDING.search(text):
        return True
    if reply.stage is not Stage.RCPT or not lexicon.RECIPIENT_HEAD_UNLESS_SENDING.search(text):
        return False
    return reply.enhanced.endswith(".2.1") or not lexicon.SENDING.search(text)


def _has_mailbox_code(text: str, reply: Reply) -> bool:
    """Whether the enhanced code is that of a mailbox, or of a recipient whose address the words name."""
    if reply.stage is Stage.RCPT and lexicon.MAILBOX_CODE.fullmatch(reply.enhanced):
        return True
    return bool(lexicon.RECIPIENT_CODE.fullmatch(reply.enhanced) and lexicon.FOR_ADDRESS.search(text))


def _is_ours_all_the_same(text: str, reply: Reply) -> bool:
    """Whether `text`, which has words or a code of the recipient's, is about us."""
    if lexicon.SENDER_ITSELF.search(text) or reply.enhanced[1:] in CODES:
        return True
    relaying = lexicon.RELAY_ITSELF.search(text)
    state = lexicon.RECIPIENT_STATE.search(text)
    return relaying is not None and (state is None or relaying.start() < state.start())


def _unstated(text: str, reply: Reply, *, names_address: bool) -> Subject:
    """Whether a policy refuses (RFC 3463 §3.8: X.7.*), or hints at us, and names neither recipient nor content."""
    is_policy = reply.enhanced.startswith(".7.", 1) or lexicon.POLICY.search(text) is not None
    is_account = reply.stage is not Stage.RCPT and "account" in text
    is_hint = is_account or names_address or lexicon.HINTS_AT_US.search(text) is not None
    other = lexicon.NAMES_SOMEBODY if reply.stage is Stage.RCPT else lexicon.NAMES_CONTENT
    if not (is_policy or is_hint) or other.search(text) or lexicon.NAMES_RECIPIENT.search(text):
        return Subject.UNKNOWN
    return Subject.HINTED if is_hint else Subject.UNSTATED


def _named(text: str, reply: Reply) -> Subject:
    if (subject := CODES.get(reply.enhanced[1:])) is not None:
        return subject
    layers = [NAMED]
    if REFUSED.search(text):
        layers.append(NAMED_WITH_REFUSAL)
    for subject, pattern in (entry for layer in layers for entry in layer):
        if pattern.search(text):
            return subject
    if reply.stage is not Stage.RCPT and ("own mailbox" in text or OWN_MAILBOX.search(text)):
        return Subject.ACCOUNT
    return Subject.UNKNOWN


def _limit(text: str, *, stage: Stage) -> Span | None:
    """For how long a limit on sending holds that `text` speaks of; None when it speaks of none."""
    text = lexicon.OTHER_LIMITS.compiled.sub(" ; ", text)
    span = _span(text)
    is_ours = bool(lexicon.OURS.search(text))
    if span is not Span.HOUR and lexicon.DATE.search(text):
        span = Span.DAY
    if lexicon.RATE.search(text) or lexicon.TOO_MUCH.search(text):
        return span or Span.SHORT
    names_limit = bool(lexicon.LIMIT.search(text))
    is_spent = bool(lexicon.SPENT.search(text))
    # A bare "quota exceeded" may be a mailbox's, unless no recipient is named yet.
    is_sending = is_ours or span is not None or stage not in _AFTER_RECIPIENT or bool(lexicon.BARE_LIMIT.search(text))
    if (names_limit and is_spent and is_sending) or _is_per_time(text):
        if span is None:
            return Span.UNSAID if lexicon.USED_UP.search(text) else Span.SHORT
        return span
    return None


def _is_per_time(text: str) -> bool:
    """Whether `text` says how many messages a time allows."""
    return bool(lexicon.PER_TIME.search(text) and (lexicon.ALLOWED.search(text) or lexicon.SPENT.search(text)))


def _span(text: str) -> Span | None:
    if lexicon.HOUR.search(text) and not lexicon.DAY_FIRST.search(text):
        return Span.HOUR
    if lexicon.DAY.search(text):
        return Span.DAY
    return Span.SHORT if lexicon.SHORT.search(text) else None


# --- the text, made plain ---------------------------------------------------------------------------------------------

_URL = lazy_pattern(r"<?\b(?:https?://|www\.)\S+")
_ADDRESS = lazy_pattern(r"<[^<>\s]*@[^<>\s]*>|[\w.+=-]+@[\w.-]+")
_IP = lazy_pattern(r"\[?\b\d{1,3}(?:\.\d{1,3}){3}\b\]?|\[?\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,7}\b\]?", re.IGNORECASE)
_HOST = lazy_pattern(r"<?\b(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)+[a-z][a-z0-9-]*[a-z0-9]\b>?", re.IGNORECASE)
_EXCEPTIONS = lazy_pattern(r"\b(?:STOREDRV|RESOLVER|SMTPSEND)[.\w:]*")
_HUMPS = lazy_pattern(r"(?<=[a-z])(?=[A-Z][a-z])")
_NOT = lazy_pattern(r"\b(can|is|are|was|were|do|does|did|has|have|would|could|should|may|must)n[’']t\b")
_SIGNS = lazy_pattern(r"[-_“”\"’'`*#()\[\]{}]+")


def plain(text: str) -> str:
    """`text` in small letters and plain words: `@` for an address, `ipaddr`, `~` for a host name, and no links.

    Of a link or a host name the name of a block list is left.

    `SendAsDeniedException` becomes four words, `isn't` two, and a hyphen or an underscore a space.
    """
    text = _ADDRESS.sub(" @ ", _URL.sub(lambda found: f" {_list_name(found[0])} ", text))
    text = _IP.sub(" ipaddr ", text)
    text = _EXCEPTIONS.sub(lambda found: found[0].replace(".", " ").replace(":", " "), text)
    text = _HOST.sub(lambda found: f" ~ {_list_name(found[0])} ", text)
    text = _HUMPS.sub(" ", text).lower()
    text = (
        _NOT.sub(r"\1 not", text).replace("can't", "can not").replace("won't", "will not").replace("cannot", "can not")
    )
    text = re.sub(r"\be-mail", "email", text)
    text = re.sub(r"[’']s\b", " s", text)
    return " ".join(_SIGNS.sub(" ", text).split())


def _list_name(host: str) -> str:
    """The part of a host name by which a block list is known."""
    found = lexicon.LIST_NAME.search(host.lower())
    return found[0] if found else ""

"""The subjects that a refusal may name, and the words that name us, as `lexicon` has those of others."""

from __future__ import annotations

from enum import Enum

from bulkmail.model.lexicon import Words, any_of


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

# At the end of a message it is nobody's but the sender's: the recipient was taken before.
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

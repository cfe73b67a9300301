"""The words of recipients and of limits, by which `wording` finds what a refusal is about.

Patterns over its text in small letters and plain words: `@` stands for an address, `ipaddr` for an IP address, `~` for
a host name.  Every line has a wording of its own in `tests/model/replies/`: a new word needs a reply that has it.
"""

from __future__ import annotations

import re

from bulkmail.model.lazy import lazy_pattern


class Words:
    """Patterns as one.  Compiled when it is first asked, as most programs that import this meet no refusal."""

    __slots__ = ("_compiled", "_pattern")

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._compiled: re.Pattern[str] | None = None

    @property
    def compiled(self) -> re.Pattern[str]:
        """The pattern itself."""
        if self._compiled is None:
            self._compiled = re.compile(self._pattern)
        return self._compiled

    def search(self, text: str) -> re.Match[str] | None:
        """Where `text` says so first."""
        return self.compiled.search(text)


def any_of(*patterns: str) -> Words:
    """One pattern that finds any of these."""
    return Words("|".join(patterns))


# --- the recipient ----------------------------------------------------------------------------------------------------

_THEM = r"(?:recipients?|addressees?|rcpt|user|mailbox|inbox|group|alias|customer s mailbox)"

# Can only mean the one that RCPT named, whatever else is said.
RECIPIENT_ALONE = any_of(
    r"\btr(?:y|ying|ied) to (?:contact|reach|send to|email|deliver to|write to)",
    r"\b(?:is|are|has been|been) receiving\b|\breceiving (?:e?mails?|messages) (?:too|at|from)\b",
    r"\b(?:can|able to|may|not|to) receive\b(?! from (?!outside|external|internet))|\breceiv(?:e|ing) (?:limit|rate"
    r"|quota)|\bmessage receive\b",
    r"\brecipient s\b|\b(?:mailbox|inbox) (?:only )?(?:accepts?|takes?)\b",
    r"\b(?:unknown|no such) user\b.{0,40}\brelay|\buser (?:\S{1,60} )?(?:not found|unknown|does not exist)\b"
    r".{0,40}\brelay",
    r"^(?!.*\b(?:out ?going|out ?bound|send|sending|sent|submi\w+)\b).*\b(?:this|that|the|user s|customer s|owner s)"
    r" (?:mailbox|inbox|group|mailing list) (?:\S{1,60} )?(?:has|gets|got|is|was|receives?|exceed\w*|reach\w*)\b",
    r"\b(?:messages?|mails?|emails?) receive[ds]\b(?!.{0,30}\bfrom\b)",
    r"\bto (?:this|that|the same|one|a single|each|any) (?:recipient|mailbox|inbox|user|addressee|address"
    r"|group|list)\b",
    r"\bfor (?:this|that|the same|one|a single|each|any) (?:recipient|mailbox|inbox|addressee|group|list)\b",
    r"\brecipient (?:@ )?(?:has|is|was|does|did|only|can|could|will|would|mailbox|inbox|prefers|over)\b",
    r"\b(?:messages?|mails?|emails?) (?:to|for) @ (?:can|could|was|is|will|has|may) ?(?:not|un)",
    r"\b(?:subscriber|member|(?:white|allow|safe) ?list|contact|friend)s? of @"
    r"|(?<!server )(?<!host )(?<!system )(?<!site )\bdoes not (?:want|wish|like)\b"
    r"|\b(?:not an? )?(?:valid|known|existing|local) recipient\b",
    r"\b(?:user|mailbox|recipient|person|inbox|alias) (?:gets|receives|got|received)\b"
    r"|\b(?:can|may|must|should|could) not be (?:mailed|emailed|written to|reached|contacted)\b",
    r"\bonly (?!customers|clients|auth\w*|registered|verified|known|the )\w+ (?:may|can) (?:send|post|write|mail)\b",
    r"\bonly reads?\b|\bfor (?:internal|private|in ?house) use\b|(?<!comes )(?<!coming )\bfrom (?:the )?outside\b"
    r"|\bby (?:its|his|her|their|the \w+ s) (?:owner|moderator|user)\b",
    r"\brecipient verif\w*|\bverif\w+ (?:of |for )?(?:the )?recipient\b",
    r"\b(?:full|over ?quota) (?:mailbox|inbox)\b|\b(?:mailbox|inbox)\b.{0,40}\b(?:is |has become "
    r"|was )?(?:full|overfull)\b",
    r"\bgr[ea]y ?list|\brecipient address rejected: (?:unverified|undeliverable) address\b",
    r"\b(?:can|may) (?:post|write) to @|\b(?:write|post) to (?:it|him|her|them|this)\b"
    r"|\bmay (?:only )?be (?:written|sent|mailed|emailed) to\b|\btriplets?\b"
    r"|(?<!your )\b(?:disk|storage) (?:quota|limit|allowance|allocation)\b",
    r"(?<!your )(?<!smtp )\b(?:user|mailbox|inbox|person|owner) has too (?:many|much)\b(?!.{0,20}\bsen[dt])",
    r"\bincoming (?:mail|message|email)s? (?:limit|quota|rate)",
)

# A limit that no recipient has.
OWN_LIMIT = any_of(
    r"\b(?:sending|out ?going|out ?bound|submission) (?:\w+ )?(?:limit|quota|rate|allowance|cap|volume)s?\b"
)

# Means the recipient as long as nothing says that it is the sender's own limit.
RECIPIENT = any_of(
    r"\brecipient (?:address )?(?:was )?(?:rejected|refused|denied|unknown|invalid|unavailable|not|blocked"
    r"|unverified)",
    r"\brecipient (?:address|account|domain|server|system|organi[sz]ation|policy|verification|callout|has|filter)\b",
    r"\b(?:un(?:known|verified|deliverable|routable|routeable)|invalid|no such|bad|non ?existent|inactive|disabled"
    r"|illegal|wrong|no valid|no) (?:destination )?(?:recipients?|user|mailbox|addressee|rcpt|local user"
    r"|local part|person)\b",
    rf"\b(?:this|that|your|the|intended|specified|requested|destination) {_THEM}\b",
    rf"\b(?:to|for|by|with|of) (?:the |this |that |our |its |a |an? \w+ )?{_THEM}\b(?! (?:limit|quota"
    rf"|per)\b)(?<!recipients)",
    rf"\b{_THEM} (?:@ )?(?:(?:is|was|has|does|did|been|account) ){{0,3}}(?:unknown|not (?:found|exist|known|activ\w*"
    rf"|local|accept\w*|available"
    r"|allow\w*|permit\w*|listed|recogni[sz]ed|want|valid)|full|over ?quota|unavailable|disabled|inactive"
    r"|suspended|blocked you"
    r"|moved|left|no longer|invalid|closed|locked|busy|deactivated|restricted|rejects?|refuses?|blocks?"
    r"|blocked|declines?)",
    r"\bno (?:such )?(?:mailbox|account|address|person|one) (?:here|by that|with that|by the|named|called"
    r"|found|exists?)",
    r"\b(?:address|account|mailbox|user) (?:@ )?(?:does|did|do) not exist"
    r"|(?<!credentials )(?<!token )(?<!password )\bno longer (?:valid|active|here"
    r"|with|works|accept)",
    r"\bover ?quota\b|\bquota (?:violation|(?:is )?(?:exceeded|full|reached)) for @|\b(?:storage|disk) (?:quota"
    r"|limit|space|is|full"
    r"|allocation)",
    r"\b(?:mailbox|inbox) (?:has |is |was )?(?:exceed\w*|over|reach\w*|at) |\bmail quota\b",
    r"\b(?:user|owner|addressee) s (?:mail ?)?(?:box|store|storage|quota|inbox|folder)\b|\bmailbox quota\b"
    r"|\bquota exceeded mailbox\b|\bmailbox (?:size|storage)\b|\bexceed\w* (?:its |their "
    r"|his |the |storage )*storage",
    r"(?<!your )(?<!smtp )(?<!sender )\b(?:user|account) (?:is |was )?(?:not active|inactive)\b"
    r"|\binactive (?:account|user)\b",
    # closed groups and lists
    r"\blist (?:is )?(?:closed|private|moderated)\b|\bmust (?:be subscribed|subscribe)\b"
    r"|\bmust be (?:an? )?(?:list )?member",
    r"\bmembers? only\b|\bonly (?:for )?members\b|\bnon ?members?\b|\bnot (?:a )?(?:member|subscriber)\b"
    r"|(?<!account )\bnot subscribed\b(?! to (?:\w+ ){0,2}(?:service|ses|plan))",
    r"\b(?:closed|private|moderated|restricted|members) (?:mailing |distribution |discussion )?(?:group|list"
    r"|recipient)s?\b",
    r"\b(?:distribution|mailing|discussion) (?:group|list)\b|\bnewsgroup\b",
    r"\bpost(?:ing)?s? (?:messages? )?(?:to|on) (?:this|the)\b|\bto post\b|\bpost here\b|\boutsiders\b"
    r"|\bmoderat(?:ed|or)",
    # what the recipient lets in
    r"\b(?:group|list|mailbox|inbox|user|addressee|person) (?:only )?(?:accepts?|takes?|wants?)\b",
    r"\bonly (?:accept|receive|allow|take)s?\b.{0,40}\bfrom\b|\baccepts? (?:only )?(?:e?mail"
    r"|messages?)? ?(?:only )?from (?:its|their|his|own"
    r"|members|internal|inside|contacts|trusted|approved|known|people|a limited|certain|specific"
    r"|authenticated|colleagues)",
    r"\b(?:allowed|accepted|approved|permitted|safe|trusted|authori[sz]ed) senders?\b|\b(?:allow|safe|permit"
    r"|approved|white) ?lists? of"
    r" (?:the |this |that )?(?:recipient|user)",
    r"\b(?:blocked|rejected|refused|declined|banned|denied|blacklisted|block listed) (?:your \w+ |you "
    r"|it )?(?:by|at the request of)"
    r" (?:the |this |that |its )?(?:recipient|user|addressee|owner|mailbox|account owner|him|her|person"
    r"|customer|end user)",
    rf"\b{_THEM}\b.{{0,25}}\b(?:has|have) (?:blocked|banned|muted|refused|declined|chosen|opted|unsubscribed"
    rf"|asked)",
    r"\b(?:personal|individual|private|user|users|recipients?|own) (?:s )?(?:block|black|deny|ignore|reject"
    r"|filter)",
    r"\bunsubscribed\b|\bopted out\b|\bon (?:the|a|our) suppression list\b",
)
RECIPIENT_RAW = any_of(
    r"RESOLVER\.(?:RST|ADR)|STOREDRV\.Deliver",
    r"RecipNotFound|RecipientNotFound|NotAuthForRecipient"
    r"|recipient table",
)

# RFC 3463 and what Exchange Online adds: 1.x the address, 2.x the mailbox, 7.x who may write to it.
RECIPIENT_CODE = lazy_pattern(r"[45]\.(?:1\.(?:1|2|3|4|5|6|10)|2\.(?:1|2|4|12\d)|4\.[14]|7\.(?:2|17|18|1[23]\d))")

# A limit that such a code and these words speak of is the mailbox's, unless it is one of sending.
FOR_ADDRESS = any_of(r"\b(?:for|to|of) @")
MAILBOX_CODE = lazy_pattern(r"[45]\.2\.[12]")
OF_SENDING = any_of(r"\b(?:your?|sen[dt]\w*|out ?going|out ?bound|relay\w*|submi\w+)\b")

# A clause that begins so and goes on so says what a recipient is, does or wants.
_HEAD = r"(?:^|[.:;,!] |\bsorry |\bbut )(?:@ : )?(?:the |this |that |our |local |target |destination |intended )*"
RECIPIENT_HEAD = any_of(
    rf"{_HEAD}(?:recipient|addressee|target address|destination address|person|employee)\b"
    r"(?! (?:address\b|limit|quota|rate|count|max\w*|cap|per|volume|number|address\w* (?:per|must|limit)))",
    rf"{_HEAD}(?:user|mailbox|inbox|address|alias|group|list|team|channel|@)(?: (?!is |was |has )\S+)? (?:only "
    rf"|(?:do|does|did"
    rf"|will|can)"
    r" not )?(?:accepts?|takes?|wants?|allows?|rejects?|refuses?|blocks?|declines?|requires?)\b",
    rf"{_HEAD}(?:user|mailbox|account|address|alias) (?:\S+ )?(?:is |was )?(?:unknown|not found|(?:does not"
    rf"|no longer) exists?)\b",
    rf"{_HEAD}(?:restricted|protected|closed) (?:user|mailbox|inbox|address|alias|group|list|recipient)\b",
    rf"{_HEAD}(?:user|mailbox|inbox|address|alias|group|list)(?: \S+)? (?:(?:is|was) )?(?:restricted|limited|closed"
    rf"|open"
    r"|reserved) (?:to|for)\b",
    rf"{_HEAD}(?:user|mailbox|owner|person|group|list|@)(?: has| have)?(?: \w+)? (?:you|your \w+|this sender"
    rf"|the sender)"
    r" (?:on|in|out|off)\b",
    rf"{_HEAD}(?:user|mailbox|owner|person|group|list)(?: \S+)? (?:has |have )?(?:black|block|deny|ignore)? ?"
    r"(?:listed|blocked|banned|muted|filtered|refused|rejected) (?:you|your|this sender|the sender)\b",
)
# The same where the words could be said of our own account: only if nothing else in them is of sending.
RECIPIENT_HEAD_UNLESS_SENDING = any_of(
    r"\bas @",
    rf"{_HEAD}(?:user|mailbox|inbox|account|address|@)(?: (?:of|for|account|name))*(?: \S+)? (?:is|was|has|have|does"
    rf"|did"
    r"|could|can|will|not|no)\b",
    rf"{_HEAD}(?:user|mailbox|account) (?:suspended|disabled|locked|blocked|inactive|closed|expired|terminated)\b",
)
SENDING = any_of(
    r"\bas @",
    r"\b(?:send\w*|sent|out ?going|out ?bound|submi\w+|relay\w*|auth\w*|log\w* ?(?:in|on)|sign\w* in|from|smtp|your?"
    r"|hourly|daily|messages|e?mails|rate|limit|quota|plan|bill\w*|pay\w*|credit\w*|trial|contract|permission"
    r"|max\w*|spam\w*|verif\w*|activat\w*|ip|ipaddr|client|host|sender|list\w*)\b",
)
# What Postfix puts before the words of a policy server, which may be about anybody.
FRAME = any_of(r"^(?:@ : )?recipient address rejected: (?:message (?:was )?rejected due to: )?")
# What blames no one: advice, the words that RFC 5321 §4.2.2 has for a code, and what another server said.
ADVICE = any_of(
    r"(?:^|(?<=[.;!?] )|(?<=, )|(?<=- ))(?:please|kindly|if (?:you|this)|for (?:more|further|assistance|help"
    r"|explanation"
    r"|details|information)|to (?:request|resolve|fix)|contact|see|visit|ask|refer|learn more|you can also"
    r"|(?:the )?sender (?:please|to|(?:may|should|can|must) (?:please )?(?:re)?try))\b[^.;!?]*",
)
STANDARD = any_of(
    r"\brequested (?:mail )?action (?:not taken|aborted):? (?:mailbox unavailable|exceeded storage allocation"
    r"|local error in processing|insufficient system storage|mailbox name not allowed)?[:;,.]?"
    r"(?! *$| *(?:please|for (?:more|explanation|further)|see|visit|quota|exceeded|~|\d))"
)
# What went well, as "sender ok, but the recipient is unknown".
PRAISE = any_of(r"\bsender (?:\w+ ){0,3}(?:ok|okay|fine|passed|succeeded|successful|valid)\b(?! only)")
QUOTED = any_of(r"\b(?:response|said|responded|answered|replied):? \d{3}\b.*?(?=\bsender verif|$)")

# What a policy says that names no one, and what names a recipient at all, in any language.
POLICY = any_of(
    r"\bpolic(?:y|ies)\b|\bservice (?:is |was )?(?:\w+ly )?(?:not available|unavailable|disabled)\b|\bprohibit\w*"
    r"|\bforbid\w*|\b(?:access|service|connection|permission|request|command)\b.{0,20}"
    r"\b(?:den\w+|refus\w*|reject\w*|block\w*)\b|^(?:\d+ )?(?:denied|blocked|banned|forbidden|refuse[ds]?)\b"
    r"|\bnot (?:been )?(?:allowed|permitted|authori[sz]ed|entitled|configured)\b|\bno permission\b|\bviolat\w*"
    r"|\bsuspen\w*|\bbanned\b|\babus\w*|\bspoof\w*|\bunauthori[sz]ed\b",
)
# Hints at the one who sends, where nothing else is known of a refusal.
HINTS_AT_US = any_of(
    r"\b(?:you(?:r|rs| are| re)?|sen[dt]\w*|mail from|from|out ?going|out ?bound|originat\w*|return (?:path|address)"
    r"|envelope|ips?|ipaddr|hosts?|networks?|asn? ?\d+|ranges?|countr(?:y|ies)|clients?|connect\w*|helo|ehlo"
    r"|reverse|remote|isp"
    r"|log ?ins?|credentials?|password|token|company|plan|package|subscription|contract|compliance"
    r"|complaints?"
    r"|relay\w*|smtp|submission|sessions?|dns|ptr|gateway|credits?|balance|flagged|suspicious|suspected|barred|mta"
    r"|blacklist\w*|servers?|throttl\w*|frequency|machine|go away|console|portal|setup|regist\w*|bulk|spammers?"
    r"|throughput|volume|hourly|daily|today)\b"
)
NAMES_CONTENT = any_of(
    r"\b(?:content|subject|headers?|body|macro|document|junk|spam|virus|score|mime|format|html|line)\b"
)
NAMES_RECIPIENT = any_of(
    r"\b(?:recipients?|addressees?|rcpt|inbox|groups?|(?:this|the|mailing|distribution|discussion) lists?|members?"
    r"|subscribers?|destination|target|null mx|unknown"
    r"|unrout\w+|destinataires?|empf[aä]nger|destinatarios?)\b",
)
# Names somebody: before the message is taken that is the recipient.
NAMES_SOMEBODY = any_of(
    r"\b(?:users?(?! (?:defined|agent))|mail ?box(?:es)?|person|employees?|staff|alias(?:es)?|owner|moved|nobody|no one"
    r"|utilisateurs?|bo[iî]te|benutzer|postfach|usuarios?|buz[oó]n|casella|utente|gebruiker|konto|compte|cuenta"
    r"|adresse?|direcci[oó]n|indirizzo|endere[cç]o|caixa)\b"
    r"|\b(?:domain|host) (?:does not|never|will not) (?:accept|receive|take)\b|\bmx (?:records?|of|for|points)\b"
    r"|\blowest numbered mx\b|\b(?:domain|host)(?: or domain)?(?: ~)?(?: names?)? (?:does not exist"
    r"|not found|lookup|unreachable|unknown)\b"
    r"|\bno such (?:domain|host)\b"
    r"|(?<!ip )(?<!return )(?<!from )(?<!sender )(?<!sending )\baddress(?:es)?\b|\b(?:this|that|customer) account\b"
    r"|\b(?:not|no longer|nobody|one|person|name|exists?|hosted|served) (?:(?:known|found|listed|served) )?here\b",
)

# "sender address rejected" means the sender even beside a code of the recipient's.
SENDER_ITSELF = any_of(
    r"\bdesignated? (?:\w+ ){0,3}senders?\b|\b(?:domain of (?:the )?)?sender (?:email )?address @",
    r"\bsender (?:address |email |domain )?(?:was |is |has been )?(?:rejected|refused|denied|verif\w+ failed"
    r"|not owned)",
    r"\bsender verif(?!ied)|\bclient host\b|\bof the sender domain\b|\bsending mta\b|\bmessages from ipaddr\b",
    r"\bauthentication (?:is )?required\b|\bhelo command\b|\bout ?(?:bound|going)\b|\bfrom sending\b|\bsend as\b"
    r"|\b(?:allowed|permitted|authori[sz]ed|entitled) to (?:send|submit|use|relay)\b(?!.{0,30}\bto\b)"
    r"|\b(?:your|smtp|sasl|sending) user\b|\b(?:logged in|authenticated) (?:account|user|customer|login)\b"
    r"|\balready sent\b"
    r"|\b(?:not|unable|not configured|refuse) (?:to )?relay|\b(?:owned|belong\w*) (?:by|to)\b"
    r"|\b(?:sender|from)\b.{0,60}\bfor (?:the |this |that |authenticated |smtp )*(?:user|login|account)\b",
)

RELAY_ITSELF = any_of(r"\brelay(?:ing)? (?:access )?(?:denied|prohibited|not permitted|not allowed)")
# What a server says of an address that it has looked up: "unverified recipient, callout said: relay denied".
RECIPIENT_STATE = any_of(
    r"\b(?:unverified|unknown|undeliverable|invalid|no such) (?:recipient|user|mailbox|addressee)\b"
    r"|\b(?:recipient|user|mailbox|addressee) (?:\S+ )?(?:is |was )?(?:unknown|unverified|not found|invalid|full)\b"
)

# Names of block lists as they stand in host names.
LIST_NAME = lazy_pattern(
    r"\bspf\b|\bdmarc\b|\bdkim\b|spamhaus|spamcop|barracuda|sorbs|uceprotect|senderscore|senderbase|invaluement"
    r"|abusix|spfbl|mailspike"
    r"|spamrats"
    r"|dns[bw]?l|\brbl|\bbl\b|\bcbl\b|psbl|backscatterer|hostkarma"
)

# --- limits on sending ------------------------------------------------------------------------------------------------

OTHER_LIMITS = any_of(
    r"\b(?:message|mail|email|file|attachment|maximum|fixed|total|header|line|data|body)s?(?: \w+)? (?:size"
    r"|length)s?\b",
    r"\bsizes? (?:limit|exceed|too|of|quota|is)|\btoo (?:large|big|long)\b|\b(?:bytes|octets|kb|mb|megabytes)\b",
    r"\bhops?\b|\bhop count\b|\breceived (?:header|line|field)s?\b|\bloop(?:s|ed|ing)?\b",
    r"\b(?:error|syntax|invalid|bad|unrecogni[sz]ed|protocol|junk|non ?mail|unknown) (?:\w+ )?(?:limit"
    r"|commands?|rate)",
    r"\btoo many (?:\w+ )?(?:errors?|commands|parts|headers|addresses in|links|urls|attachments|hops)",
    r"\b(?:time|memory|cpu|processes|load|resource)s? ?(?:limit|out)|\btimed? ?out|\blimited to\b"
    r"|\bspam (?:score|threshold)"
    r"|\b(?:bounce|complaint|failure|spam) rates?\b|\b(?:unread|stored) (?:messages?|e?mails?)\b",
)

_MAIL = (
    r"(?:messages?|e?mails?|mailings?|recipients?|rcpts?|requests?|submissions?|deliveries|sends?|sent"
    r"|sending|sender|letters"
    r"|people|transactions|commands|attempts|posts?|transmissions?|calls|addresses)"
)
_TIME = (
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|s|h|d|24 ?h(?:ours?|rs?)?"
    r"|rolling \w+|period|interval)"
)

# These words can only be about the sender.
RATE = any_of(
    r"\bthrottl",
    r"\brate ?limit|\bratelimit",
    r"\b(?:rate|speed|frequency|pace)\b.{0,60}\b(?:exceed\w*|too (?:high|fast)|over|above|reached|limit\w*"
    r"|reduce\w*|lower)",
    r"\b(?:exceed\w*|over|above|reduce|lower|high)\b.{0,40}\b(?:rate|speed|frequency)\b",
    r"\bslow(?:er|ing)?\b(?: it)? ?down|\bsend\w* (?:more )?slow(?:er|ly)",
    r"\b(?:used|spent|consumed) (?:up )?all (?:of )?(?:the |your )?(?:relays|messages|emails|mails)\b",
    r"\btoo (?:fast|quickly|rapidly|frequent(?:ly)?|often|soon)\b",
    r"\b(?:send|sending|message|mail|email|submission|delivery|transmission|recipient)s? rates?\b",
    r"\btraffic (?:shap|polic)\w*|\brate of (?:your )?(?:sending|submission|mails?|messages?)\b",
    r"\bsend\w* faster\b|\bflood(?:ing|ed|s)?\b|\bback(?:ing)? off\b|\bbursts?\b|\brate that\b",
)
TOO_MUCH = any_of(
    rf"\btoo (?:many|much)\b(?: \w+){{0,3}} {_MAIL}\b",
    r"\b(?:unusual|excessive|abnormal|suspicious|high|unexpected|large|huge)(?: \w+)? (?:volume|number"
    r"|amount|rate|quantity|sending|outbound)",
    rf"\b(?:excessive|unusual|suspicious) (?:\w+ )?(?:{_MAIL}|activity)",
    rf"\b(?:more|many) {_MAIL}\b.{{0,30}}\bthan\b|\bsen[dt] (?:too|so) (?:many|much)\b",
    r"\b(?:volume|number|amount|count|quantity)\b.{0,40}\btoo high\b",
    rf"\b(?:more|further|additional) {_MAIL}\b.{{0,30}}\b(?:not|today|tomorrow)\b",
    r"\bsend (?:any )?(?:more|further)\b|\byou (?:have )?(?:already )?(?:e?mailed|written to|contacted) \d+\b",
    rf"\bno more {_MAIL}\b.{{0,40}}\b(?:today|hour|day|now|moment|allowed)",
)
LIMIT = any_of(
    r"\b(?:\w*limits?|limites?|limitations?|quotas?|allowances?|caps?|allotments?|maximum|max|ceilings?"
    r"|allocations?|contingents?|budgets?|over ?limit)\b",
    r"\b(?:number|count|amount|quantity) of\b|\bvolume\b|\b(?:message|mail|email|recipient) counts?\b",
    r"\b(?:hourly|daily|weekly|monthly) (?:\w+ )?(?:credits?|volumes?|numbers?)\b",
    rf"\b(?:hourly|daily|weekly|monthly) {_MAIL}\b",
)
SPENT = any_of(
    r"\b(?:d[eé]pass|(?:ue|[uü])berschritt|erreicht|superad|superat|excedid|raggiunt|atingid|atteint|alcanzad)\w*",
    r"\bexce(?:ed\w*|ss\w*)\b|\breach(?:ed|es|ing)?\b|\bhit\b|\bover\b|\bused\b|\bexhausted\b|\bsurpass\w*"
    r"|\bbeyond\b|\bdepleted\b",
    r"\bconsumed\b|\bspent\b|\brun dry\b|\bdrained\b|\bover(?:stepped|run|drawn|shot)\b|\bmaxed\b|\bover ?limit\b"
    r"|\bfull\b|\babove\b|\bno (?:more|remaining)\b|\bcrossed\b|\bviolat\w*|\bran out\b"
    r"|\brun out\b|\bleft\b|\bpassed\b",
    r"\bachieved\b|\bmet\b|\bwent over\b|\bgone over\b|\battained\b|\bup\b|\ballow\w*\b|\bonly\b|\bmore than\b"
    r"|\bbusted\b"
    r"|\blimit \d|\bgreater than\b|\b(?:already|has|have) sent\b|\bsent (?:the|all)\b",
)
OURS = any_of(
    r"\b(?:versand\w*|sende\w*|versende\w*|envois?|env[ií]os?|invio|invii|ausgehende\w*|sortants?|salientes?)\b",
    r"\b(?:out ?going|out ?bound|sending|send|sent|senders?|submission|submit\w*|relays?|relayed|relaying"
    r"|smtp|you|your|client|clients"
    r"|tenant|plan|subscription|customer|outmail|mailing|external recipients?|recipients|rcpts)\b",
    rf"\b{_MAIL}(?: ?/ ?| (?:per|an?|each|every|in|within|during) )(?:\d+ )?{_TIME}\b",
    r"\b(?:mail|messages?|email|account|domain|user|traffic|recipients?) (?:send|sending|sent|rate|volume|count)\b",
    r"\b(?:messages?|emails?|recipients?|rcpts?|traffic|api) (?:limit|quota|allowance|cap)s?\b",
)
# A number of messages in a time is a limit even where no other word of the kind is said.
PER_TIME = any_of(
    rf"\b\d+ {_MAIL} (?:hourly|daily|weekly|monthly)\b",
    rf"\b{_MAIL}\b.{{0,25}}(?:\bper\b|/|\ban?\b|\beach\b|\bevery\b|\bwithin\b|\bin\b|\bper\b) ?(?:the |a "
    rf"|one |last |past ){{0,2}}(?:\d+ )?{_TIME}\b",
    r"\b(?:hourly|daily|weekly|monthly|24 ?h\w*|per (?:hour|day|minute|second)|hour|day)\b.{0,30}\b(?:limit"
    r"|quota|allowance|cap|max\w*)",
    r"\b(?:limit|quota|allowance|max\w*)\b.{0,40}\b(?:hourly|daily|hours?|day|24 ?h\w*)\b",
)
ALLOWED = any_of(
    rf"\b\d+ {_MAIL}\b ?(?:/|per\b)|\b\d+ ?(?:of|/) ?\d+\b",
    r"\ballow\w*|limit\w*|\blets\b|\bexceed\w*|\bmax\w*|\bonly\b|\bmore than\b|\bat most\b|\breach\w*|\bquota\b"
    r"|\bpermit\w*",
)

BARE_LIMIT = any_of(
    r"\blimits? (?:has been |was |is )?(?:exceeded|reached|hit)|\b(?:exceeded|reached|over) (?:the |your "
    r"|its )?(?:\w+ )?limit"
)
DAY_FIRST = any_of(r"\b24 ?(?:h\b|hours?|hrs?)|\b48 ?h|\bdaily\b")

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DATE = any_of(rf"\b\d{{1,2}} {_MONTH} \d{{4}}\b|\b{_MONTH} \d{{1,2}},? \d{{4}}\b|\b20\d\d \d\d \d\d\b")

HOUR = any_of(
    r"\b(?:pro stunde|st[uü]nd\w*|stunden\w*|heures?|horaire|por hora|all ora|orari\w)\b|\bhour(?:s|ly)?\b"
    r"|/ ?h(?:ou)?r?\b|\b60 ?min|\bhr\b|\b1 ?h\b"
)
DAY = any_of(
    r"\b(?:tages\w*|t[aä]glich\w*|pro tag|jours?|journali\w+|d[ií]as?|di[aá]ri\w+|giorn\w+)\b",
    r"\bday\b|\bdays\b|\bdaily\b|\b24 ?(?:h\b|hours?|hrs?)|/ ?d(?:ay)?\b|\btomorrow\b|\btoday\b|\bmidnight\b"
    r"|\b1440\b|\b48 ?h"
    r"|\bweek(?:s|ly)?\b|\bmonth(?:s|ly)?\b|\bper diem\b|\bannual\b|\byear(?:ly)?\b",
)
SHORT = any_of(r"\bseconds?\b|\bsecs?\b|/ ?s(?:ec)?\b|\bminute(?:s|ly)?\b|\bmins?\b|/ ?m(?:in)?\b")
USED_UP = any_of(
    r"\bquotas?\b|\ballowances?\b|\ballotments?\b|\b(?:sending|send|outgoing|outbound|mailing"
    r"|sender) (?:\w+ )?(?:limits?|caps?)\b"
    r"|\blimits? (?:on|of|for) (?:out|send)|\b(?:plan|package)\b|\b(?:message|email|mail) (?:limit|cap)s?\b"
)

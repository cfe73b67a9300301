"""What to do about a refusal that is about us: one sentence for each reason, wherever it is shown."""

from __future__ import annotations

from typing import NamedTuple

from bulkmail.model.outcome import Reason


class Advice(NamedTuple):
    """`says` follows the name of the server: "refused the login".  `fix` is what to do, without a capital."""

    says: str
    fix: str


_WITH_USER = "put the user name into the relay URL: smtp://user@host"
_OWN_ADDRESS = "send from an address that this account may use; providers have a list of verified senders"
_QUOTA = "wait until the provider's quota is free again"

ADVICE: dict[Reason, Advice] = {
    Reason.LOGIN_REFUSED: Advice(
        "refused the login",
        "check user name and password; the name is often the whole address, and some providers want an app password",
    ),
    Reason.LOGIN_DISABLED: Advice(
        "has switched off logins with a password for this account",
        "log in with a token (see OAuth in the guide), or ask the account's administrator to allow SMTP logins "
        "(at Microsoft: aka.ms/smtp_auth_disabled)",
    ),
    Reason.LOGIN_LATER: Advice("cannot check the password at the moment", "try again in some minutes"),
    Reason.TOO_MANY_LOGINS: Advice(
        "has seen too many logins and takes none for now", "wait an hour, then try once with the right password"
    ),
    Reason.APP_PASSWORD_NEEDED: Advice(
        "wants an app password here, not the password of the account",
        "make one in the security settings of the account (at Google: myaccount.google.com/apppasswords), "
        "and use it as the password",
    ),
    Reason.BROWSER_LOGIN_NEEDED: Advice(
        "wants you to sign in with a browser first", "sign in there once and confirm that it was you; then try again"
    ),
    Reason.CREDITS_USED_UP: Advice("says that the account's credits are used up", "buy more at the provider"),
    Reason.LOGIN_REQUIRED: Advice("wants a login or TLS first", _WITH_USER),
    Reason.RELAYING_DENIED: Advice(
        "does not relay this mail for us",
        "without a login most servers take mail for their own people only; check user name and address",
    ),
    Reason.SENDER_REFUSED: Advice("refused the sender", _OWN_ADDRESS),
    Reason.SENDER_BLOCKED: Advice("blocked the sender", "ask the provider why"),
    Reason.SENDER_FULL: Advice("says that the sender's own mailbox is full", "make room in it"),
    Reason.NOT_VERIFIED: Advice(
        "says that the sender or the account is not verified",
        "verify the sender address, the domain or the account there",
    ),
    Reason.ACCOUNT_REFUSED: Advice("refuses this account", "ask the provider what is wrong with the account"),
    Reason.CLIENT_REFUSED: Advice(
        "refuses this computer's address or name",
        "send through a relay that you have a login for, or have the address and its reverse DNS name permitted there",
    ),
    Reason.BLOCK_LISTED: Advice(
        "says that this address is on a block list",
        "have it removed from the list that the reply names, or send through another relay",
    ),
    Reason.UNAUTHENTICATED: Advice(
        "refuses mail whose SPF, DKIM or DMARC check fails",
        "let the SPF and DKIM records of the sender's domain cover this server; check --online shows what is missing",
    ),
    Reason.HINTED: Advice(
        "refuses something about us and does not say what",
        "look up what the reply names, or ask the server's postmaster; usual causes are sender, login and IP address",
    ),
    Reason.UNSTATED_POLICY: Advice(
        "refuses by a policy and does not say of whom",
        "look up what the reply names, or ask the server's postmaster; usual causes are sender, login and IP address",
    ),
    Reason.QUOTA: Advice("says that the sending quota is used up", _QUOTA),
    Reason.THROTTLED: Advice("asks for fewer messages", "lower rate or connections"),
    Reason.POLICY: Advice(
        "refused the message", "fix what the server complains of: links, attachments, wording of the message"
    ),
}


def advice(reason: Reason) -> Advice | None:
    """What to do about `reason`, None where it is not for us to do anything."""
    return ADVICE.get(reason)

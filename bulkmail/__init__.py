"""bulkmail: one message to a whole list, personal, paced, resumable, every row accounted for.

import bulkmail

campaign = bulkmail.compose(
    from_="Shop <news@example.com>", subject="Hello {{ first_name }}", text="Dear {{ first_name }}, …"
)
report = await bulkmail.send(campaign, "people.csv", relay="smtps://news@mail.example.com", password="…")
print(report.accepted, report.failed)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkmail.engine.contracts import DeliveryResult as DeliveryResult
    from bulkmail.mailing.checking import NothingToSend as NothingToSend
    from bulkmail.mailing.library import Mailer as Mailer
    from bulkmail.mailing.library import compose as compose
    from bulkmail.mailing.library import send as send
    from bulkmail.mailing.library import send_sync as send_sync
    from bulkmail.mailing.operator import cancel as cancel
    from bulkmail.mailing.operator import stop as stop
    from bulkmail.mailing.program import DeliveryResults as DeliveryResults
    from bulkmail.mailing.program import SendingStopped as SendingStopped
    from bulkmail.mailing.pulse import SendingProgress as SendingProgress
    from bulkmail.message.unsubscribe import read_unsubscribe as read_unsubscribe
    from bulkmail.message.unsubscribe import verify_unsubscribe as verify_unsubscribe
    from bulkmail.message.verp import decode_verp as decode_verp
    from bulkmail.model.campaign import Attachment as Attachment
    from bulkmail.model.campaign import Campaign as Campaign
    from bulkmail.model.campaign import Dkim as Dkim
    from bulkmail.model.campaign import InlineImage as InlineImage
    from bulkmail.model.campaign import Keys as Keys
    from bulkmail.model.campaign import RowAttachment as RowAttachment
    from bulkmail.model.campaign import Template as Template
    from bulkmail.model.campaign import Unsubscribe as Unsubscribe
    from bulkmail.model.errors import AddressError as AddressError
    from bulkmail.model.errors import BreakerTripped as BreakerTripped
    from bulkmail.model.errors import BulkmailError as BulkmailError
    from bulkmail.model.errors import ChecksFailed as ChecksFailed
    from bulkmail.model.errors import ConfigError as ConfigError
    from bulkmail.model.errors import EmptyList as EmptyList
    from bulkmail.model.errors import ListError as ListError
    from bulkmail.model.errors import OutboxBusy as OutboxBusy
    from bulkmail.model.errors import OutboxError as OutboxError
    from bulkmail.model.errors import RelayError as RelayError
    from bulkmail.model.errors import SendingPaused as SendingPaused
    from bulkmail.model.errors import SuppressionError as SuppressionError
    from bulkmail.model.errors import TemplateError as TemplateError
    from bulkmail.model.pace import Pace as Pace
    from bulkmail.model.quota import Quota as Quota
    from bulkmail.model.rate import Rate as Rate
    from bulkmail.model.recipient import Address as Address
    from bulkmail.model.recipient import Recipient as Recipient
    from bulkmail.model.relay import Relay as Relay
    from bulkmail.model.relay import Secret as Secret
    from bulkmail.model.retry import Backoff as Backoff
    from bulkmail.model.retry import RetryPolicy as RetryPolicy
    from bulkmail.model.route import Route as Route
    from bulkmail.model.tally import Status as Status
    from bulkmail.recipients.list_reading import ListOptions as ListOptions
    from bulkmail.report.report import Report as Report
    from bulkmail.settings.suppressions import SuppressionSettings as SuppressionSettings
    from bulkmail.smtp.trace import Conversation as Conversation
    from bulkmail.smtp.trace import ConversationLine as ConversationLine

_HOMES = {
    "Address": "model.recipient",
    "AddressError": "model.errors",
    "Attachment": "model.campaign",
    "BreakerTripped": "model.errors",
    "BulkmailError": "model.errors",
    "Backoff": "model.retry",
    "Campaign": "model.campaign",
    "ConfigError": "model.errors",
    "Conversation": "smtp.trace",
    "ConversationLine": "smtp.trace",
    "DeliveryResults": "mailing.program",
    "Dkim": "model.campaign",
    "ChecksFailed": "model.errors",
    "EmptyList": "model.errors",
    "Keys": "model.campaign",
    "InlineImage": "model.campaign",
    "ListError": "model.errors",
    "ListOptions": "recipients.list_source",
    "Mailer": "mailing.library",
    "NothingToSend": "mailing.checking",
    "OutboxBusy": "model.errors",
    "OutboxError": "model.errors",
    "Pace": "model.pace",
    "Quota": "model.quota",
    "Rate": "model.rate",
    "Recipient": "model.recipient",
    "Relay": "model.relay",
    "RelayError": "model.errors",
    "Report": "report.report",
    "RetryPolicy": "model.retry",
    "Route": "model.route",
    "Secret": "model.relay",
    "RowAttachment": "model.campaign",
    "SendingPaused": "model.errors",
    "SendingProgress": "mailing.pulse",
    "SendingStopped": "mailing.program",
    "DeliveryResult": "engine.contracts",
    "Status": "model.tally",
    "SuppressionError": "model.errors",
    "SuppressionSettings": "settings.suppressions",
    "Template": "model.campaign",
    "TemplateError": "model.errors",
    "Unsubscribe": "model.campaign",
    "cancel": "mailing.operator",
    "decode_verp": "message.verp",
    "compose": "mailing.library",
    "read_unsubscribe": "message.unsubscribe",
    "send": "mailing.library",
    "send_sync": "mailing.library",
    "stop": "mailing.operator",
    "verify_unsubscribe": "message.unsubscribe",
}

__version__ = "0.1.0"
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Names come when they are asked for, so that `import bulkmail` costs nothing."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bulkmail' has no attribute {name!r}")
    return getattr(import_module(f"bulkmail.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]

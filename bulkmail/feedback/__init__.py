"""What comes back after a campaign: bounces, spam complaints, auto-replies and unsubscribe mails, read and matched."""

"""The suppression list: which addresses get no mail from any campaign of a sender, and why."""

"""Files that go with a message: of the campaign, of a row, drawn for it, and calendar invitations."""

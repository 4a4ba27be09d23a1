"""What ownloop promises about speed and size, measured against the standard library on the machine it runs on."""

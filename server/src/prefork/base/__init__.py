"""What every process of the server builds on; knows no setting and no policy."""

"""What makes training and inference faster and no different: imported late, never by networks or losses."""

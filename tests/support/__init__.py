"""What several tests share: a client of the bridge, a sidecar that misbehaves, transcripts, a view of the processes."""

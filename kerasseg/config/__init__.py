"""The sections of an experiment; `config` puts them together."""

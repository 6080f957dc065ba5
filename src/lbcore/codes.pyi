STAGES: tuple[str, ...]
REASONS: tuple[str, ...]
AUTHORIZE_REASONS: frozenset[str]

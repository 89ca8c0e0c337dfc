-- Families whose lines an operator has halted: workers consume from none of them, APIs go on accepting.
CREATE TABLE halts (
    family    text        NOT NULL CONSTRAINT halts_pkey PRIMARY KEY,
    halted_at timestamptz NOT NULL DEFAULT now()
);

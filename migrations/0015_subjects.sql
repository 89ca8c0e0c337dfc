-- Whom an issuer of tokens means by a name that is no number.
CREATE TABLE subjects (
    issuer     text        NOT NULL,
    subject    text        NOT NULL,
    user_id    bigint      NOT NULL CONSTRAINT subjects_user_id_fkey REFERENCES users (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subjects_pkey PRIMARY KEY (issuer, subject),
    CONSTRAINT subjects_one_per_user UNIQUE (issuer, user_id)
);

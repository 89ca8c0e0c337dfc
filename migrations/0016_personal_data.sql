-- Who bought a product, in order; and what a user's personal data lies in beside the user's own row.
CREATE INDEX order_items_by_product ON order_items (product_id, order_id);
CREATE INDEX subjects_by_user ON subjects (user_id);
-- Answers of `POST /api/admin/users`, by the user's id; those of other kinds are left out.
CREATE INDEX idempotent_answers_of_users ON idempotent_answers (((body ->> 'id')::bigint)) WHERE kind = 'create-user';

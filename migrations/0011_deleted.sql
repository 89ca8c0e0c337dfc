-- What operators deleted and can restore: few among many, found without reading the others.
CREATE INDEX coupons_deleted ON coupons (id) WHERE deleted_at IS NOT NULL;
CREATE INDEX products_deleted ON products (id) WHERE deleted_at IS NOT NULL;

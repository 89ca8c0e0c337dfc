-- What operators ever put into stock, less what they took out of it: what it is above the stock was
-- sold. The audit compares that with the lines of the orders.

ALTER TABLE products ADD COLUMN stocked bigint;
UPDATE products SET stocked = stock
    + COALESCE((SELECT sum(quantity) FROM order_items WHERE product_id = products.id), 0);
ALTER TABLE products
    ALTER COLUMN stocked SET NOT NULL,
    ADD CONSTRAINT products_stock_was_stocked CHECK (stock <= stocked);

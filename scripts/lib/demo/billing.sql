-- The second database.
SET ROLE billing_owner;
CREATE SCHEMA ledger;
CREATE TABLE ledger.entries (id uuid PRIMARY KEY, cents bigint NOT NULL, body text);
INSERT INTO ledger.entries SELECT md5(n::text)::uuid, n * 13, repeat('entry ' || n || ' ', 20) FROM generate_series(1, 30000) AS n;
CREATE TABLE ledger.empty (id integer);

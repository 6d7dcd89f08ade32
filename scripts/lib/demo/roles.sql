-- Roles of the demo stack: an owner, a reader with grants, a member of a group.
CREATE ROLE shop_owner LOGIN PASSWORD 'owner-of-the-shop';
CREATE ROLE shop_staff NOLOGIN;
CREATE ROLE shop_clerk LOGIN PASSWORD 'clerk' CONNECTION LIMIT 5 IN ROLE shop_staff;
CREATE ROLE billing_owner LOGIN PASSWORD 'owner-of-billing';
ALTER ROLE shop_clerk SET statement_timeout = '30s';
CREATE DATABASE shop OWNER shop_owner;
CREATE DATABASE billing OWNER billing_owner;
ALTER DATABASE shop SET timezone = 'Europe/Berlin';

# in
SELECT id, k FROM bids WHERE id IN (SELECT id FROM clicks)

# in, of rows that are taken back
SELECT id, k, price FROM accounts WHERE k IN (SELECT k FROM loose WHERE price > 3)

# exists
SELECT id, name FROM bids o WHERE EXISTS (SELECT 1 FROM clicks c WHERE c.id = o.id AND c.k < o.k)

# not exists
SELECT id, name FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM loose l WHERE l.k = a.k AND l.price = a.price)

# exists, whatever there is
SELECT id FROM accounts WHERE EXISTS (SELECT 1 FROM loose WHERE price > 1000000)

# exists or else
SELECT id FROM accounts a WHERE price > 5 OR EXISTS (SELECT 1 FROM clicks c WHERE c.id = a.id)

# in or else
SELECT id FROM bids WHERE id IN (SELECT id FROM clicks) OR price < 2

# a value of all
SELECT id, price FROM bids WHERE price > (SELECT avg(price) FROM bids)

# a value among the results
SELECT id, (SELECT max(price) FROM loose) AS most FROM accounts

# a value of each
SELECT id, (SELECT sum(l.price) FROM loose l WHERE l.k = a.k) AS s FROM accounts a

# a count of each, which is never null
SELECT id, (SELECT count(*) FROM clicks c WHERE c.id = a.id) AS n FROM accounts a

# more than the mean of its kind
SELECT id, price FROM accounts a WHERE price > (SELECT avg(b.price) FROM accounts b WHERE b.k = a.k)

# the largest of its kind
SELECT id, k, price FROM bids o WHERE price = (SELECT max(price) FROM bids i WHERE i.k = o.k)

# a subquery in HAVING
SELECT k, count(*) AS n FROM bids GROUP BY k HAVING count(*) > (SELECT count(*) FROM clicks) / 10

# a common table, used twice
WITH t AS (SELECT k, count(*) AS n FROM accounts GROUP BY k) SELECT a.k, a.n, b.k AS other FROM t a JOIN t b ON a.n = b.n

# a lateral join
SELECT a.id, t.n FROM accounts a CROSS JOIN LATERAL (SELECT count(*) AS n FROM clicks c WHERE c.id = a.id) t

# nested
SELECT id FROM bids WHERE k IN (SELECT k FROM clicks WHERE id IN (SELECT id FROM accounts WHERE price > 2))

# not in
SELECT id, k FROM bids WHERE k NOT IN (SELECT k FROM loose WHERE price > 5)

# not in, where nothing is
SELECT id, k FROM accounts WHERE k NOT IN (SELECT k FROM nothing)

# not in, where nulls come and go
SELECT id, k FROM accounts WHERE k NOT IN (SELECT k FROM loose WHERE x > 1)

# not in or else, where nulls come and go
SELECT id, k FROM accounts WHERE price > 6 OR k NOT IN (SELECT k FROM loose WHERE x > 1)

# in, where it matters whether it is known
SELECT id, k FROM bids WHERE (k IN (SELECT k FROM clicks WHERE id > 40)) IS NULL

# not in one of several
SELECT id FROM bids WHERE NOT (k IN (SELECT k FROM clicks WHERE id < 3) OR k = 2)

# in a case
SELECT id FROM accounts WHERE CASE WHEN k NOT IN (SELECT k FROM loose) THEN price > 1 ELSE price < 3 END

# more than all
SELECT id, price FROM accounts WHERE price >= ALL (SELECT price FROM loose WHERE k > 3)

# more than any
SELECT id, price FROM bids WHERE price > ANY (SELECT price FROM accounts)

# one of any, or else
SELECT id FROM accounts WHERE k = ANY (SELECT k FROM clicks) OR price > 6

# not in, by columns outside
SELECT id, k FROM bids b WHERE k NOT IN (SELECT c.k FROM clicks c WHERE c.name = b.name)

# not in by columns outside, where nulls come and go
SELECT a.id, a.k FROM accounts a WHERE a.price NOT IN (SELECT l.price FROM loose l WHERE l.k = a.k)

# not in by several columns outside, and a comparison
SELECT a.id FROM accounts a WHERE a.price + 1 NOT IN (SELECT l.price FROM loose l WHERE l.k = a.k AND l.name = a.name AND l.x > a.x)

# not in by columns outside, beside another condition
SELECT a.id FROM accounts a WHERE a.price > 5 AND a.k NOT IN (SELECT DISTINCT l.k FROM loose l WHERE l.name = a.name)

# not in by columns outside, or else
SELECT a.id FROM accounts a WHERE a.price > 100 OR a.price NOT IN (SELECT l.price FROM loose l WHERE l.k = a.k)

# not in by columns outside, of groups
SELECT a.id FROM accounts a WHERE a.price NOT IN (SELECT max(l.price) FROM loose l WHERE l.k = a.k GROUP BY l.name)

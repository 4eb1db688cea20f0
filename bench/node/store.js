// What the original kept in Postgres: one row a job, written as it goes along.
const { Pool } = require('pg');

const pool = new Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.POOL) });

const insert = async (types, payloads) => {
  const { rows } = await pool.query(
    "INSERT INTO job (type, payload, status) SELECT type, payload, 'PENDING'" +
      ' FROM unnest($1::text[], $2::jsonb[]) AS new (type, payload) RETURNING id',
    [types, payloads],
  );
  return rows.map((row) => row.id);
};

const insertOne = async (type, payload) => {
  const { rows } = await pool.query(
    "INSERT INTO job (type, payload, status) VALUES ($1, $2, 'PENDING') RETURNING id",
    [type, payload],
  );
  return rows[0].id;
};

const setStatus = (id, status) =>
  pool.query('UPDATE job SET status = $2, updated_at = now() WHERE id = $1', [id, status]);

module.exports = { insert, insertOne, setStatus };

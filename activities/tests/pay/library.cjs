// Stripe's own library asks the Stripe of the tests: what it says has to be what the library expects.
// node library.cjs <port> <key> <secret>; a webhook as JSON on standard input. Needs `npm install stripe` in NODE_PATH.
const assert = require('node:assert');
const Stripe = require('stripe');

const [port, key, secret] = process.argv.slice(2);
const stripe = new Stripe(key, { host: '127.0.0.1', port, protocol: 'http', maxNetworkRetries: 0 });

async function main() {
  const params = {
    mode: 'payment',
    success_url: 'http://127.0.0.1:1/back',
    client_reference_id: 'a',
    metadata: { flatrender_payment: 'a' },
    payment_intent_data: { metadata: { flatrender_payment: 'a' } },
    line_items: [{ quantity: 1, price_data: { currency: 'usd', unit_amount: 1999, product_data: { name: 'Plan' } } }],
  };
  const session = await stripe.checkout.sessions.create(params, { idempotencyKey: 'one' });
  assert.equal(session.status, 'open');
  const again = await stripe.checkout.sessions.create(params, { idempotencyKey: 'one' });
  assert.equal(again.id, session.id);
  assert.equal(again.lastResponse.headers['idempotent-replayed'], 'true');
  const other = { ...params, client_reference_id: 'b' };
  await assert.rejects(stripe.checkout.sessions.create(other, { idempotencyKey: 'one' }), Stripe.errors.StripeIdempotencyError);
  const page = await fetch(session.url, { method: 'POST', redirect: 'manual' });
  assert.equal(page.headers.get('location'), params.success_url);
  const paid = await stripe.checkout.sessions.retrieve(session.id, { expand: ['payment_intent.latest_charge'] });
  assert.equal(paid.payment_status, 'paid');
  assert.equal(paid.payment_intent.amount_received, 1999);
  assert.equal(paid.payment_intent.latest_charge.payment_method_details.card.last4, '4242');
  const give = { payment_intent: paid.payment_intent.id, amount: 500, metadata: { flatrender_refund: 'r' } };
  const refund = await stripe.refunds.create(give, { idempotencyKey: 'two' });
  assert.equal((await stripe.refunds.create(give, { idempotencyKey: 'two' })).id, refund.id);
  assert.equal((await stripe.refunds.retrieve(refund.id)).status, 'succeeded');
  const refunds = await stripe.refunds.list({ payment_intent: paid.payment_intent.id }).autoPagingToArray({ limit: 10 });
  assert.deepEqual(refunds.map((r) => r.id), [refund.id]);
  await assert.rejects(stripe.refunds.create({ ...give, amount: 5000 }), Stripe.errors.StripeInvalidRequestError);
  await assert.rejects(stripe.checkout.sessions.retrieve('cs_test_none'), (error) => error.code === 'resource_missing');
  await assert.rejects(new Stripe('sk_test_other', { host: '127.0.0.1', port, protocol: 'http', maxNetworkRetries: 0 })
    .accounts.retrieveCurrent(), Stripe.errors.StripeAuthenticationError);
  assert.equal((await stripe.accounts.retrieveCurrent()).object, 'account');
  const since = { gte: paid.created - 5 };
  const events = await stripe.events.list({ types: ['checkout.session.completed'], created: since, limit: 1 });
  assert.equal(events.data[0].data.object.id, session.id);
  const charges = await stripe.charges.list({ created: since, limit: 100 });
  assert.equal(charges.data[0].metadata.flatrender_payment, 'a');
  const open = await stripe.checkout.sessions.create(params);
  assert.equal((await stripe.checkout.sessions.expire(open.id)).status, 'expired');
  await assert.rejects(stripe.checkout.sessions.expire(open.id), Stripe.errors.StripeInvalidRequestError);

  const webhook = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
  const event = stripe.webhooks.constructEvent(webhook.body, webhook.signature, secret);
  assert.equal(event.id, webhook.event_id);
  assert.throws(() => stripe.webhooks.constructEvent(webhook.body + ' ', webhook.signature, secret));
  console.log(stripe.webhooks.generateTestHeaderString({ payload: webhook.body, secret }));
}

main().catch((error) => { console.error(error); process.exit(1); });

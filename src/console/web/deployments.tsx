import { useContext } from 'preact/hooks'
import type { EngineSignal } from '../../core/runtime.ts'
import { STALE_MS } from '../../core/signals.ts'
import type { DeploymentView, FleetView, ReplicaState, ReplicaView } from '../../core/view.ts'
import { count, percent, short, span } from './format.ts'
import { Bar, Empty, Lag, State, Value } from './parts.tsx'
import { Ranks } from './ranks.tsx'

export const Deployments = ({ fleet }: { fleet: FleetView }) => (
  <section aria-labelledby="deployments">
    <h2 id="deployments">
      Deployments <small>{fleet.deployments.length}</small>
    </h2>
    {fleet.deployments.length === 0 && (
      <Empty>
        Nothing is deployed. Describe models in <code>manifests/</code>, look with{' '}
        <code>make plan</code>, then type <code>make deploy-models</code>.
      </Empty>
    )}
    <div class="cards">
      {fleet.deployments.map((deployment) => (
        <Deployment key={deployment.name} deployment={deployment} nowMs={fleet.nowMs} />
      ))}
    </div>
  </section>
)

const Deployment = ({ deployment, nowMs }: { deployment: DeploymentView; nowMs: number }) => {
  const { fit, replicas, refusals } = deployment
  const ready = replicas.filter(({ state }) => state === 'ready').length
  const short = ready < deployment.replicasWanted
  return (
    <article class="panel">
      <h3>
        <span class="name">{deployment.name}</span>
        {deployment.removed && <State tone="warn">manifest removed</State>}
        <span class="push" />
        <span class={short ? 'warn' : 'dim'}>
          {ready} of {deployment.replicasWanted} ready
        </span>
      </h3>
      <p class="facts dim">
        {deployment.engine} · {deployment.weights} · context {count(deployment.context)}
        {fit?.ok &&
          ` · KV pool ${count(fit.kvPoolTokens)} tokens by the plan, ` +
            `${fit.fullContextRequests.toFixed(1)} requests of full context`}
      </p>
      {refusals.length > 0 && (
        <ul class="refusals bad">
          {refusals.map((refusal) => (
            <li key={refusal}>{refusal}</li>
          ))}
        </ul>
      )}
      {replicas.length === 0 && refusals.length === 0 && (
        <Empty>
          No replica yet. <code>penstock status</code> and the log of Penstock say what it waits
          for.
        </Empty>
      )}
      {replicas.map((replica) => (
        <Replica key={replica.id} replica={replica} nowMs={nowMs} />
      ))}
    </article>
  )
}

const TONES = {
  pending: 'idle',
  starting: 'busy',
  ready: 'ok',
  draining: 'warn',
  stopped: 'idle',
  failed: 'bad',
} as const satisfies Record<ReplicaState, string>

const Replica = ({ replica, nowMs }: { replica: ReplicaView; nowMs: number }) => {
  const lag = useContext(Lag)
  return (
    <section class="replica" aria-label={`replica ${replica.id}`}>
      <p class="headline">
        <State tone={TONES[replica.state]}>{replica.state}</State>
        <strong class="name">{replica.id}</strong>
        <span class="dim">for {span(nowMs - replica.sinceMs + lag)}</span>
        {replica.restarts > 0 && (
          <span class="warn">
            {replica.restarts} {replica.restarts === 1 ? 'restart' : 'restarts'}
          </span>
        )}
        <span class="push" />
        <code class="dim endpoint-of">{replica.endpoint}</code>
      </p>
      {replica.reason !== '' && replica.reason !== replica.state && (
        <p class={replica.state === 'failed' ? 'bad reason' : 'dim reason'}>{replica.reason}</p>
      )}
      <Signals replica={replica} />
      <Ranks replica={replica} />
    </section>
  )
}

/** A signal older than its limit is unknown: the policies treat it so, and so does the page. */
const useSignal = (replica: ReplicaView) => {
  const lag = useContext(Lag)
  return (name: EngineSignal) => {
    const reading = replica.signals[name]
    if (reading === undefined) {
      const why = replica.state === 'ready' ? 'the engine did not report it' : 'not ready yet'
      return { value: null, why }
    }
    // Judged as the policies did when the picture was made; a lost line greys the whole board.
    if (reading.ageMs > STALE_MS) {
      return { value: null, why: `last read ${span(reading.ageMs + lag)} ago` }
    }
    return { value: reading.value, why: '' }
  }
}

const Signals = ({ replica }: { replica: ReplicaView }) => {
  const signal = useSignal(replica)
  const [kv, capacity] = [signal('kvCacheUsageRatio'), signal('kvCapacityTokens')]
  const [running, waiting] = [signal('requestsRunning'), signal('requestsWaiting')]
  const numbers: readonly (readonly [string, string, string])[] = [
    ['In flight', count(replica.inFlight), ''],
    ['Running', count(running.value), running.why],
    ['Waiting', count(waiting.value), waiting.why],
    ['Tokens/s out', short(replica.generationTokensPerSecond), 'needs two readings'],
    ['Tokens/s in', short(replica.promptTokensPerSecond), 'needs two readings'],
  ]
  return (
    <dl class="signals">
      <div class="kv">
        <dt>KV cache</dt>
        <dd>
          <Bar ratio={kv.value} limits={[0.85, 0.95]} />
          <b>
            <Value text={percent(kv.value)} why={kv.why} />
          </b>
          <span class="dim">
            {kv.value === null ? kv.why : 'of '}
            {kv.value !== null && <Value text={short(capacity.value)} why={capacity.why} />}
            {kv.value !== null && ' tokens'}
          </span>
        </dd>
      </div>
      {numbers.map(([name, text, why]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            <Value text={text} why={why} />
          </dd>
        </div>
      ))}
    </dl>
  )
}

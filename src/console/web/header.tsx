import type { FleetView, ReplicaView } from '../../core/view.ts'
import { count, short, total } from './format.ts'
import { Copy, Rehearsal, State, Value } from './parts.tsx'
import { baseUrl } from './snippets.ts'

export const rehearsed = (fleet: FleetView): boolean =>
  fleet.rehearsal || fleet.nodes.some(({ rehearsal }) => rehearsal)

type Props = { readonly fleet: FleetView; readonly live: boolean; onLeave(): void }

export const Header = ({ fleet, live, onLeave }: Props) => {
  const url = baseUrl(fleet.gateway.url, location.hostname)
  return (
    <header>
      <h1>
        Penstock <small>{fleet.version}</small>
      </h1>
      {rehearsed(fleet) && <Rehearsal />}
      <div class="endpoint">
        <span class="dim">Endpoint</span>
        <code>{url}</code>
        <Copy text={url} what="the endpoint" />
      </div>
      <span class="push" />
      <State tone={live ? 'ok' : 'bad'}>{live ? 'live' : 'not connected'}</State>
      <a href="/metrics">Metrics</a>
      <a href="/admin/v1/openapi.json">API</a>
      <button type="button" class="quiet" onClick={onLeave}>
        Forget key
      </button>
    </header>
  )
}

const replicas = (fleet: FleetView): readonly ReplicaView[] =>
  fleet.deployments.flatMap((deployment) => deployment.replicas)

const NOT_READ = 'no engine has been read yet'

/** The few numbers that are looked at first. */
export const Totals = ({ fleet }: { fleet: FleetView }) => {
  const all = replicas(fleet)
  const wanted = fleet.deployments.reduce((sum, { replicasWanted }) => sum + replicasWanted, 0)
  const ready = all.filter(({ state }) => state === 'ready').length
  const gpus = fleet.nodes.reduce((sum, { gpuCount }) => sum + gpuCount, 0)
  const held = fleet.nodes.reduce((sum, node) => sum + Object.keys(node.allocated).length, 0)
  const away = fleet.nodes.filter(({ reachable }) => !reachable).length
  const signal = (name: 'requestsRunning' | 'requestsWaiting') =>
    total(all.map(({ signals }) => signals[name]?.value))
  const items: readonly (readonly [string, string, string])[] = [
    ['Replicas ready', `${ready} / ${wanted}`, ready < wanted ? 'warn' : ''],
    ['Nodes reachable', `${fleet.nodes.length - away} / ${fleet.nodes.length}`, away ? 'bad' : ''],
    ['GPUs held', `${held} / ${gpus}`, ''],
    ['In flight', count(fleet.gateway.inFlight), ''],
    ['Running', count(signal('requestsRunning')), ''],
    ['Waiting', count(signal('requestsWaiting')), ''],
    ['Tokens/s out', short(total(all.map((one) => one.generationTokensPerSecond))), ''],
    ['Tokens/s in', short(total(all.map((one) => one.promptTokensPerSecond))), ''],
  ]
  return (
    <dl class="totals">
      {items.map(([name, text, tone]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class={tone}>
            <Value text={text} why={NOT_READ} />
          </dd>
        </div>
      ))}
    </dl>
  )
}

import { useContext, useState } from 'preact/hooks'
import type { GpuView, NodeView } from '../../core/view.ts'
import { count, gibibytes, OLD_MS, percent } from './format.ts'
import { Age, Bar, Empty, Lag, Rehearsal, State, Value } from './parts.tsx'

/** Drawn at first; a browser that redraws 1,000 tables four times a second is of no use. */
const SHOWN = 24

export const Nodes = ({ nodes }: { nodes: readonly NodeView[] }) => {
  const [all, setAll] = useState(false)
  const shown = all ? nodes : worstFirst(nodes).slice(0, SHOWN)
  return (
    <section aria-labelledby="nodes">
      <h2 id="nodes">
        Nodes <small>{nodes.length}</small>
      </h2>
      {nodes.length === 0 && (
        <Empty>
          No machine is declared yet. Write <code>inventory.yaml</code>, then type{' '}
          <code>make deploy-models</code>.
        </Empty>
      )}
      <div class="columns">
        {shown.map((node) => (
          <Node key={node.name} node={node} />
        ))}
      </div>
      {shown.length < nodes.length && (
        <button type="button" class="quiet" onClick={() => setAll(true)}>
          Show all {nodes.length} nodes
        </button>
      )}
    </section>
  )
}

/** Order is kept for a handful; where some must be left out, the broken ones stay. */
const worstFirst = (nodes: readonly NodeView[]): readonly NodeView[] =>
  nodes.length <= SHOWN
    ? nodes
    : nodes.toSorted((a, b) => Number(a.reachable) - Number(b.reachable))

const Node = ({ node }: { node: NodeView }) => {
  const { facts } = node
  const machine =
    facts === null
      ? node.driver
      : `${facts.engine} · ${count(facts.cpus)} CPUs · ${count(facts.memoryBytes / 1024 ** 3)} GiB`
  return (
    <article class={node.reachable ? 'panel' : 'panel away'}>
      <h3>
        <span class="name">{node.name}</span>
        <State tone={node.reachable ? 'ok' : 'bad'}>
          {node.reachable ? 'reachable' : 'unreachable'}
        </State>
        {node.rehearsal && <Rehearsal />}
        <span class="push" />
        <span class="dim">
          seen <Age ms={node.ageMs} /> ago
        </span>
      </h3>
      <p class="facts dim">
        {node.address} · {machine}
        {node.profile !== null && ` · ${node.gpuCount} × ${node.profile}`}
      </p>
      {!node.reachable && <p class="bad reason">{node.reason}</p>}
      {node.gpuCount > 0 && <Gpus node={node} />}
    </article>
  )
}

const Gpus = ({ node }: { node: NodeView }) => {
  const seen = new Map(node.gpus.map((gpu) => [gpu.index, gpu]))
  const declared = Array.from({ length: node.gpuCount }, (_, index) => index)
  const indices = [...new Set([...declared, ...seen.keys()])].toSorted((a, b) => a - b)
  const why = node.reachable ? 'no GPU reading has come from this node' : node.reason
  return (
    <div class="scroll">
      <table class="gpus">
        <caption class="hidden">GPUs of {node.name}</caption>
        <thead>
          <tr>
            <th scope="col">GPU</th>
            <th scope="col" colSpan={2}>
              Use
            </th>
            <th scope="col" colSpan={2}>
              Memory, GiB
            </th>
            <th scope="col" class="number">
              Power
            </th>
            <th scope="col" class="number">
              Temp.
            </th>
            <th scope="col">Held by</th>
            <th scope="col" class="number">
              Age
            </th>
          </tr>
        </thead>
        <tbody>
          {indices.map((index) => (
            <Gpu
              key={index}
              index={index}
              gpu={seen.get(index) ?? null}
              holder={node.allocated[index] ?? null}
              why={why}
            />
          ))}
        </tbody>
      </table>
    </div>
  )
}

type GpuProps = {
  readonly index: number
  readonly gpu: GpuView | null
  readonly holder: string | null
  readonly why: string
}

const Gpu = ({ index, gpu, holder, why }: GpuProps) => {
  const reason = gpu === null ? why : 'the driver did not say'
  const [used, all] = [gpu?.memoryUsedBytes ?? null, gpu?.memoryTotalBytes ?? null]
  const full = used === null || all === null || all === 0 ? null : used / all
  const memory = used === null ? gibibytes(null) : `${gibibytes(used)} / ${gibibytes(all)}`
  const unit = (value: number | null | undefined, name: string): string =>
    value === null || value === undefined ? count(null) : `${count(value)} ${name}`
  const old = gpu !== null && gpu.ageMs + useContext(Lag) > OLD_MS
  return (
    <tr class={old ? 'old' : ''}>
      <th scope="row" title={gpu === null ? '' : `${gpu.name} ${gpu.uuid}`}>
        {index}
      </th>
      <td class="meter">
        <Bar ratio={gpu?.utilizationRatio} />
      </td>
      <td class="number">
        <Value text={percent(gpu?.utilizationRatio)} why={reason} />
      </td>
      <td class="meter">
        <Bar ratio={full} />
      </td>
      <td class="number">
        <Value text={memory} why={reason} />
      </td>
      <td class="number">
        <Value text={unit(gpu?.powerWatts, 'W')} why={reason} />
      </td>
      <td class="number">
        <Value text={unit(gpu?.temperatureCelsius, '°C')} why={reason} />
      </td>
      <td class="holder" title={holder ?? ''}>
        {holder ?? <span class="dim">free</span>}
      </td>
      <td class="number">
        {gpu === null ? <Value text={count(null)} why={reason} /> : <Age ms={gpu.ageMs} />}
      </td>
    </tr>
  )
}

import type { Phase } from '../../core/runtime.ts'
import type { RankView, ReplicaView } from '../../core/view.ts'
import { percent, ranges } from './format.ts'
import { State, Value } from './parts.tsx'

/** Start-up in order, as core/runtime.ts has it. */
const PHASES: readonly Phase[] = [
  'pull',
  'start',
  'rendezvous',
  'weights',
  'profile',
  'graphs',
  'ready',
]

const NAMES = {
  pull: 'pulling the image',
  start: 'starting',
  rendezvous: 'waiting for all ranks',
  weights: 'loading weights',
  profile: 'measuring memory',
  graphs: 'capturing graphs',
  ready: 'ready',
} as const satisfies Record<Phase, string>

const TONES = {
  missing: 'idle',
  created: 'busy',
  running: 'ok',
  exited: 'bad',
  unknown: 'warn',
} as const satisfies Record<RankView['state'], string>

export const Ranks = ({ replica }: { replica: ReplicaView }) => (
  <div class="scroll">
    <table class="ranks">
      <caption class="hidden">Ranks of {replica.id}</caption>
      <thead>
        <tr>
          <th scope="col">Rank</th>
          <th scope="col">Node</th>
          <th scope="col">GPUs</th>
          <th scope="col">Container</th>
          <th scope="col">Phase</th>
        </tr>
      </thead>
      <tbody>
        {replica.ranks.map((rank) => (
          <Rank key={rank.rank} rank={rank} />
        ))}
      </tbody>
    </table>
  </div>
)

const Rank = ({ rank }: { rank: RankView }) => (
  <tr>
    <th scope="row">{rank.rank}</th>
    <td class="nowrap">{rank.node}</td>
    <td class="nowrap">{ranges(rank.gpus)}</td>
    <td title={rank.container}>
      <State tone={TONES[rank.state]}>
        {rank.state}
        {rank.exitCode !== null && `, code ${rank.exitCode}`}
      </State>
    </td>
    <td>
      <Progress rank={rank} />
      {rank.error !== null && <span class="bad error">{rank.error}</span>}
    </td>
  </tr>
)

const Progress = ({ rank: { phase, phaseRatio } }: { rank: RankView }) => {
  if (phase === null) return <Value text="–" why="its log has said nothing yet" />
  const at = PHASES.indexOf(phase)
  const text = phaseRatio === null ? NAMES[phase] : `${NAMES[phase]}, ${percent(phaseRatio)}`
  const done = (index: number): number => {
    if (index < at || phase === 'ready') return 1
    return index === at ? (phaseRatio ?? 0.5) : 0
  }
  return (
    <span class="progress">
      <span class="steps" aria-hidden="true">
        {PHASES.slice(0, -1).map((name, index) => (
          <span key={name} class={index === at ? 'step now' : 'step'}>
            <span class="done" style={{ width: `${done(index) * 100}%` }} />
          </span>
        ))}
      </span>
      {text}
    </span>
  )
}

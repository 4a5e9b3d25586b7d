/** The page: one state, fed by one line to the server. */
import { useEffect, useReducer, useState } from 'preact/hooks'
import type { FleetView } from '../../core/view.ts'
import { CallIt } from './callit.tsx'
import { Charts } from './charts.tsx'
import { Deployments } from './deployments.tsx'
import { clockTime, span } from './format.ts'
import { Header, Totals } from './header.tsx'
import { forgetKey, KeyForm, storedKey, storeKey } from './key.tsx'
import { keepLink, type LinkNews } from './link.ts'
import { Nodes } from './nodes.tsx'
import { Lag } from './parts.tsx'
import { Requests } from './requests.tsx'
import { EMPTY, hear, type PageState } from './state.ts'

/** This browser's clock, each second: ages must grow while nothing comes in. */
const useNow = (): number => {
  const [nowMs, setNowMs] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => setNowMs(Date.now()), 1000)
    return () => clearInterval(timer)
  }, [])
  return nowMs
}

export const App = () => {
  const [key, setKey] = useState(storedKey)
  const [state, tell] = useReducer(hear, EMPTY)
  useEffect(() => {
    if (key === null) return
    const leave = new AbortController()
    const listen = (news: LinkNews): void => {
      tell(news)
      if (news.kind !== 'refused') return
      forgetKey()
      setKey(null)
    }
    void keepLink(key, listen, leave.signal)
    return () => leave.abort()
  }, [key])
  if (key === null) {
    const open = (given: string): void => {
      storeKey(given)
      setKey(given)
    }
    return <KeyForm refused={state.refused} onKey={open} />
  }
  const leave = (): void => {
    forgetKey()
    location.reload()
  }
  return <Board state={state} onLeave={leave} />
}

const Board = ({ state, onLeave }: { state: PageState; onLeave(): void }) => {
  const nowMs = useNow()
  const { fleet, lost, pictureAtMs } = state
  if (fleet === null) {
    return (
      <main class="door">
        <Banner lost={lost} nowMs={nowMs} />
        <p class="dim">Waiting for the first picture of the fleet…</p>
      </main>
    )
  }
  return (
    <Lag.Provider value={Math.max(0, nowMs - pictureAtMs)}>
      <Header fleet={fleet} live={lost === null} onLeave={onLeave} />
      <Banner lost={lost} nowMs={nowMs} />
      <main class={lost === null ? 'board' : 'board stale'}>
        <ConfigProblem config={fleet.config} />
        <Totals fleet={fleet} />
        <Deployments fleet={fleet} />
        <Charts series={state.series} />
        <Nodes nodes={fleet.nodes} />
        <Requests requests={state.requests} />
        <CallIt fleet={fleet} />
      </main>
    </Lag.Provider>
  )
}

const ConfigProblem = ({ config }: Pick<FleetView, 'config'>) =>
  config.problem === null ? null : (
    <p class={config.broken ? 'banner' : 'banner waits'} role="status">
      <strong>{config.broken ? 'Manifests are broken' : 'Manifests wait'}</strong>: {config.problem}
    </p>
  )

const Banner = ({ lost, nowMs }: { lost: PageState['lost']; nowMs: number }) => (
  <div role="status" aria-live="polite">
    {lost !== null && (
      <p class="banner">
        <strong>Connection lost since {clockTime(lost.sinceMs)}</strong>
        <span aria-live="off">({span(nowMs - lost.sinceMs)})</span>: {lost.reason}. What is below is
        from then; trying again by itself.
      </p>
    )}
  </div>
)

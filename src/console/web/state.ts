/** What the page knows, and how each piece of news changes it. */
import type { Series } from '../../core/admin.ts'
import type { FinishedRequest } from '../../core/snapshot.ts'
import type { FleetView } from '../../core/view.ts'
import type { LinkNews } from './link.ts'
import { withPicture } from './series.ts'

export type PageState = {
  readonly fleet: FleetView | null
  /** This browser's clock when the last picture came: ages grow from here. */
  readonly pictureAtMs: number
  readonly requests: readonly FinishedRequest[]
  readonly series: readonly Series[]
  /** Set while the line is down. */
  readonly lost: { readonly sinceMs: number; readonly reason: string } | null
  /** Why the key was refused; the form shows it. */
  readonly refused: string | null
}

export const EMPTY: PageState = {
  fleet: null,
  pictureAtMs: 0,
  requests: [],
  series: [],
  lost: null,
  refused: null,
}

/** Rows kept for the table. */
const REQUESTS_MAX = 100

export const hear = (state: PageState, news: LinkNews): PageState => {
  if (news.kind === 'fleet') {
    const { fleet, atMs } = news
    const series = withPicture(state.series, fleet)
    return { ...state, fleet, series, pictureAtMs: atMs, lost: null, refused: null }
  }
  if (news.kind === 'requests') return { ...state, requests: merged(news.requests, state.requests) }
  if (news.kind === 'history') return { ...state, series: news.series }
  if (news.kind === 'refused') return { ...EMPTY, refused: news.message }
  // The first loss counts: trying again in vain does not make the data younger.
  return { ...state, lost: state.lost ?? { sinceMs: news.atMs, reason: news.reason } }
}

/** Newest first; after a reconnect the server sends some again. */
const merged = (
  fresh: readonly FinishedRequest[],
  known: readonly FinishedRequest[],
): readonly FinishedRequest[] => {
  const ids = new Set(fresh.map(({ id }) => id))
  return [...fresh, ...known.filter(({ id }) => !ids.has(id))].slice(0, REQUESTS_MAX)
}

/** From lines to what uPlot draws. */
import uPlot from 'uplot'
import { HOUR_MS, type Line } from './series.ts'

export type Curve = {
  readonly label: string
  readonly line: Line
  /** Name of a style property. */
  readonly hue: string
  readonly dashed: boolean
}

export type PlotAsk = {
  readonly curves: readonly Curve[]
  readonly format: (value: number | null) => string
  /** Upper end of the scale; left out: as high as the values. */
  readonly max?: number
  readonly width: number
  /** Epoch seconds under the cursor; null: the cursor left. */
  readonly onCursor: (seconds: number | null) => void
}

export const HEIGHT = 140

/** Colours of style.css; curves beyond them begin again. */
const COLOURS = ['--curve-1', '--curve-2', '--curve-3', '--curve-4', '--curve-5', '--curve-6']

/** Each line has its own times: joined, with holes that are drawn over and gaps that are not. */
export const dataOf = (curves: readonly Curve[]): uPlot.AlignedData => {
  if (curves.length === 0) return [[], []]
  const tables = curves.map(({ line }): uPlot.AlignedData => [[...line.times], [...line.values]])
  return uPlot.join(
    tables,
    tables.map(() => [1, 2]),
  )
}

export const optionsOf = (ask: PlotAsk): uPlot.Options => {
  const style = getComputedStyle(document.documentElement)
  const colour = (name: string): string => style.getPropertyValue(name).trim()
  const axis: uPlot.Axis = {
    stroke: colour('--dim'),
    font: '11px system-ui, sans-serif',
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
  }
  const values = (_plot: uPlot, splits: number[]): string[] => splits.map((v) => ask.format(v))
  return {
    width: ask.width,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    cursor: { sync: { key: 'hour' }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: lastHour },
      y: { range: (_plot, _low, high) => [0, top(high, ask)] },
    },
    axes: [
      { ...axis, size: 24, values: '{HH}:{mm}', space: 64 },
      { ...axis, size: 46, values, space: 32 },
    ],
    legend: { show: false },
    hooks: { setCursor: [(plot) => ask.onCursor(timeUnder(plot))] },
    series: [
      {},
      ...ask.curves.map(({ label, hue, dashed }) => ({
        label,
        stroke: colour(hue),
        width: 1.5,
        ...(dashed ? { dash: [4, 4] } : {}),
        points: { show: false },
      })),
    ],
  }
}

/** The colour of the replica at this place in the list of all: the same in every chart. */
export const colourOf = (place: number): string => COLOURS[place % COLOURS.length] ?? '--curve-1'

const timeUnder = (plot: uPlot): number | null => {
  const { idx } = plot.cursor
  return idx === null || idx === undefined ? null : (plot.data[0][idx] ?? null)
}

const top = (high: number | null, { max }: PlotAsk): number => max ?? Math.max(1, (high ?? 0) * 1.1)

/** A chart younger than this would show its first minutes as one column. */
const SPAN_SECONDS_MIN = 300

/** The last hour, or as much of it as there is: three charts of the same age agree. */
const lastHour = (_plot: uPlot, first: number | null, last: number | null): uPlot.Range.MinMax => {
  const end = last ?? Date.now() / 1000
  const known = end - (first ?? end)
  return [end - Math.min(HOUR_MS / 1000, Math.max(SPAN_SECONDS_MIN, known)), end]
}

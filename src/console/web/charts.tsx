/** The last hour: three charts that share their time axis and their cursor. */
import { useEffect, useRef, useState } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import type { Series } from '../../core/admin.ts'
import { clockTime, percent, short } from './format.ts'
import { Empty } from './parts.tsx'
import { type Curve, colourOf, dataOf, HEIGHT, optionsOf } from './plot.ts'
import { linesOf, valueAt } from './series.ts'

export const Charts = ({ series }: { series: readonly Series[] }) => {
  const curve = curves(series)
  const kv = curve('kvCacheUsageRatio', '')
  const load = [
    ...curve('requestsRunning', ' running'),
    ...curve('requestsWaiting', ' waiting').map((one) => ({ ...one, dashed: true })),
  ]
  const tokens = curve('generationTokensPerSecond', '')
  return (
    <section aria-labelledby="hour">
      <h2 id="hour">Last hour</h2>
      {kv.length + load.length + tokens.length === 0 ? (
        <Empty>Curves begin once an engine is ready and has been read.</Empty>
      ) : (
        <div class="charts">
          <Chart title="KV cache use" curves={kv} format={percent} max={1} />
          <Chart title="Requests running and waiting" curves={load} format={short} />
          <Chart title="Tokens generated per second" curves={tokens} format={short} />
        </div>
      )}
    </section>
  )
}

/** Curves of one series name; a replica has one colour in all of them. */
const curves = (series: readonly Series[]) => {
  const named = series.flatMap(({ labels }) => labels.replica ?? [])
  const replicas = [...new Set(named)].toSorted()
  return (name: string, suffix: string): readonly Curve[] =>
    linesOf(series, name).map((line) => ({
      label: `${line.replica}${suffix}`,
      line,
      hue: colourOf(replicas.indexOf(line.replica)),
      dashed: false,
    }))
}

type ChartProps = {
  readonly title: string
  readonly curves: readonly Curve[]
  readonly format: (value: number | null) => string
  readonly max?: number
}

const Chart = (props: ChartProps) => {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const shape = props.curves.map(({ label }) => label).join('\n')
  const theme = useTheme()
  const [at, setAt] = useState<number | null>(null)
  useEffect(() => {
    const parent = place.current
    if (parent === null) return
    const made = new uPlot(
      optionsOf({ ...props, width: parent.clientWidth, onCursor: setAt }),
      dataOf(props.curves),
      parent,
    )
    plot.current = made
    const watch = new ResizeObserver(() => {
      made.setSize({ width: parent.clientWidth, height: HEIGHT })
    })
    watch.observe(parent)
    return () => {
      watch.disconnect()
      made.destroy()
      plot.current = null
    }
  }, [shape, theme])
  useEffect(() => {
    plot.current?.setData(dataOf(props.curves))
  }, [props.curves])
  return (
    <figure class="panel chart">
      <figcaption>
        {props.title}
        <span class="push" />
        <span class="dim">{at === null ? 'now' : clockTime(at * 1000)}</span>
      </figcaption>
      <div ref={place} role="img" aria-label={inWords(props)} />
      <Legend {...props} at={at} />
    </figure>
  )
}

/** Values under the cursor, the newest when there is none. */
const Legend = ({ curves, format, at }: ChartProps & { at: number | null }) => (
  <ul class="legend" aria-hidden="true">
    {curves.map(({ label, line, hue, dashed }) => (
      <li key={label}>
        <span class={dashed ? 'stroke dashed' : 'stroke'} style={{ borderColor: `var(${hue})` }} />
        {label} <b>{format(valueAt(line, at))}</b>
      </li>
    ))}
  </ul>
)

/** The newest value of each curve, for who cannot see them. */
const inWords = ({ title, curves, format }: ChartProps): string => {
  const newest = curves.map(({ label, line }) => `${label} ${format(line.values.at(-1) ?? null)}`)
  return `${title}: ${newest.length === 0 ? 'nothing yet' : newest.join(', ')}`
}

/** Canvas colours are read once, so a chart is made anew when the scheme changes. */
const useTheme = (): boolean => {
  const [dark, setDark] = useState(() => matchMedia('(prefers-color-scheme: dark)').matches)
  useEffect(() => {
    const query = matchMedia('(prefers-color-scheme: dark)')
    const changed = (): void => setDark(query.matches)
    query.addEventListener('change', changed)
    return () => query.removeEventListener('change', changed)
  }, [])
  return dark
}

/** The last hour: three charts that share their time axis and their cursor. */
import { useEffect, useRef, useState } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import type { Series } from '../../core/admin.ts'
import { percent, short } from './format.ts'
import { Empty } from './parts.tsx'
import { type Curve, dataOf, HEIGHT, optionsOf } from './plot.ts'
import { type Line, linesOf } from './series.ts'

export const Charts = ({ series }: { series: readonly Series[] }) => {
  const kv = linesOf(series, 'kvCacheUsageRatio').map(curve(''))
  const load = [
    ...linesOf(series, 'requestsRunning').map(curve(' running')),
    ...linesOf(series, 'requestsWaiting').map(curve(' waiting', true)),
  ]
  const tokens = linesOf(series, 'generationTokensPerSecond').map(curve(''))
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

const curve =
  (suffix: string, dashed = false) =>
  (line: Line): Curve => ({ label: `${line.replica}${suffix}`, line, dashed })

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
  useEffect(() => {
    const parent = place.current
    if (parent === null) return
    const made = new uPlot(
      optionsOf({ ...props, width: parent.clientWidth }),
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
      <figcaption>{props.title}</figcaption>
      <div ref={place} role="img" aria-label={inWords(props)} />
    </figure>
  )
}

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

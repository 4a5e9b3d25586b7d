/**
 * `nvidia-smi -q` and `-q -x`: one tree, written as text or as XML. Names, nesting and order as
 * driver R555 prints them (nvsmi_device_v12.dtd); what an H20 does not have is N/A there too.
 */
import { CUDA_VERSION, DRIVER_VERSION, FIELDS, type Gpu } from './smi-fields.ts'

type Leaf = { readonly label: string; readonly tag: string; readonly value: string }
type Branch = { readonly label: string; readonly tag: string; readonly inner: readonly Node[] }
type Node = Leaf | Branch

const leaf = (label: string, tag: string, value: string): Leaf => ({ label, tag, value })
const branch = (label: string, tag: string, ...inner: readonly Node[]): Branch => ({
  label,
  tag,
  inner,
})

/** A field of --query-gpu with its unit. */
const shown = (gpu: Gpu, name: string): string => {
  const field = FIELDS[name]
  if (field === undefined) return 'N/A'
  const text = field.read(gpu)
  return text === '[N/A]' ? 'N/A' : text + field.unit
}

const gpuOf = (gpu: Gpu): readonly Node[] => {
  const of = (label: string, tag: string, field: string) => leaf(label, tag, shown(gpu, field))
  return [
    of('Product Name', 'product_name', 'name'),
    leaf('Product Brand', 'product_brand', 'NVIDIA'),
    leaf('Product Architecture', 'product_architecture', 'Hopper'),
    of('Persistence Mode', 'persistence_mode', 'persistence_mode'),
    branch(
      'MIG Mode',
      'mig_mode',
      of('Current', 'current_mig', 'mig.mode.current'),
      of('Pending', 'pending_mig', 'mig.mode.current'),
    ),
    of('Serial Number', 'serial', 'serial'),
    of('GPU UUID', 'uuid', 'uuid'),
    leaf('Minor Number', 'minor_number', String(gpu.index)),
    branch(
      'GPU Reset Status',
      'gpu_reset_status',
      leaf(
        'Reset Required',
        'reset_required',
        (gpu.reading.eccUncorrected ?? 0) > 0 ? 'Yes' : 'No',
      ),
    ),
    branch('PCI', 'pci', of('Bus Id', 'pci_bus_id', 'pci.bus_id')),
    of('Fan Speed', 'fan_speed', 'fan.speed'),
    of('Performance State', 'performance_state', 'pstate'),
    reasons(gpu),
    ...memoryOf(of),
    ...eccOf(of),
    ...loadOf(of),
    processes(gpu),
  ]
}

type Of = (label: string, tag: string, field: string) => Leaf

const memoryOf = (of: Of): readonly Node[] => [
  branch(
    'FB Memory Usage',
    'fb_memory_usage',
    of('Total', 'total', 'memory.total'),
    of('Reserved', 'reserved', 'memory.reserved'),
    of('Used', 'used', 'memory.used'),
    of('Free', 'free', 'memory.free'),
  ),
  of('Compute Mode', 'compute_mode', 'compute_mode'),
  branch(
    'Utilization',
    'utilization',
    of('GPU', 'gpu_util', 'utilization.gpu'),
    of('Memory', 'memory_util', 'utilization.memory'),
  ),
]

const eccOf = (of: Of): readonly Node[] => {
  const span = (label: string, name: 'volatile' | 'aggregate') =>
    branch(
      label,
      name,
      of('SRAM Correctable', 'sram_correctable', `ecc.errors.corrected.${name}.sram`),
      of('DRAM Correctable', 'dram_correctable', `ecc.errors.corrected.${name}.dram`),
      of('DRAM Uncorrectable', 'dram_uncorrectable', `ecc.errors.uncorrected.${name}.dram`),
    )
  return [
    branch(
      'ECC Mode',
      'ecc_mode',
      of('Current', 'current_ecc', 'ecc.mode.current'),
      of('Pending', 'pending_ecc', 'ecc.mode.pending'),
    ),
    branch(
      'ECC Errors',
      'ecc_errors',
      span('Volatile', 'volatile'),
      span('Aggregate', 'aggregate'),
    ),
    branch(
      'Remapped Rows',
      'remapped_rows',
      of('Correctable Error', 'remapped_row_corr', 'remapped_rows.correctable'),
      of('Uncorrectable Error', 'remapped_row_unc', 'remapped_rows.uncorrectable'),
      of('Pending', 'remapped_row_pending', 'remapped_rows.pending'),
      of('Remapping Failure Occurred', 'remapped_row_failure', 'remapped_rows.failure'),
    ),
  ]
}

/** --query-gpu gives degrees bare, -q with their unit. */
const celsius = ({ label, tag, value }: Leaf): Leaf => leaf(label, tag, `${value} C`)

const loadOf = (of: Of): readonly Node[] => [
  branch(
    'Temperature',
    'temperature',
    celsius(of('GPU Current Temp', 'gpu_temp', 'temperature.gpu')),
    celsius(of('Memory Current Temp', 'memory_temp', 'temperature.memory')),
  ),
  branch(
    'GPU Power Readings',
    'gpu_power_readings',
    of('Power State', 'power_state', 'pstate'),
    of('Power Draw', 'power_draw', 'power.draw'),
    of('Current Power Limit', 'current_power_limit', 'power.limit'),
    of('Default Power Limit', 'default_power_limit', 'power.default_limit'),
  ),
  branch(
    'Clocks',
    'clocks',
    of('SM', 'sm_clock', 'clocks.sm'),
    of('Memory', 'mem_clock', 'clocks.mem'),
  ),
]

const reasons = (gpu: Gpu): Branch => {
  const one = (label: string, name: string) =>
    leaf(label, `clocks_event_reason_${name}`, shown(gpu, `clocks_event_reasons.${name}`))
  return branch(
    'Clocks Event Reasons',
    'clocks_event_reasons',
    one('Idle', 'gpu_idle'),
    one('SW Power Cap', 'sw_power_cap'),
    one('HW Slowdown', 'hw_slowdown'),
    one('HW Thermal Slowdown', 'hw_thermal_slowdown'),
    one('SW Thermal Slowdown', 'sw_thermal_slowdown'),
  )
}

const processes = (gpu: Gpu): Node => {
  const { pid, processName } = gpu.reading
  if (pid === 0) return leaf('Processes', 'processes', '')
  return branch(
    'Processes',
    'processes',
    branch(
      'Process',
      'process_info',
      leaf('GPU instance ID', 'gpu_instance_id', 'N/A'),
      leaf('Compute instance ID', 'compute_instance_id', 'N/A'),
      leaf('Process ID', 'pid', String(pid)),
      leaf('Type', 'type', 'C'),
      leaf('Name', 'process_name', processName),
      leaf('Used GPU Memory', 'used_memory', shown(gpu, 'memory.used')),
    ),
  )
}

const headOf = (gpus: number, now: Date): readonly Leaf[] => [
  leaf('Timestamp', 'timestamp', clock(now)),
  leaf('Driver Version', 'driver_version', DRIVER_VERSION),
  leaf('CUDA Version', 'cuda_version', CUDA_VERSION),
  leaf('Attached GPUs', 'attached_gpus', String(gpus)),
]

/** Mon Jul 15 13:41:56 2024 */
const clock = (now: Date): string => {
  const [weekday = '', month = '', day = '', year = '', time = ''] = now.toString().split(' ')
  return `${weekday} ${month} ${day} ${time} ${year}`
}

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

const xmlLines = (nodes: readonly Node[], indent: string): readonly string[] =>
  nodes.flatMap((node) =>
    'value' in node
      ? [`${indent}<${node.tag}>${escaped(node.value)}</${node.tag}>`]
      : [
          `${indent}<${node.tag}>`,
          ...xmlLines(node.inner, `${indent}\t`),
          `${indent}</${node.tag}>`,
        ],
  )

/** `nvidia-smi -q -x` */
export const xmlLog = (gpus: readonly Gpu[], now: Date): string =>
  [
    '<?xml version="1.0" ?>',
    '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">',
    '<nvidia_smi_log>',
    ...xmlLines(headOf(gpus.length, now), '\t'),
    ...gpus.flatMap((gpu) => [
      `\t<gpu id="${shown(gpu, 'pci.bus_id')}">`,
      ...xmlLines(gpuOf(gpu), '\t\t'),
      '\t</gpu>',
    ]),
    '</nvidia_smi_log>',
    '',
  ].join('\n')

/** Labels are padded so that all colons stand in one column. */
const COLON_AT = 42

const textLines = (nodes: readonly Node[], indent: string): readonly string[] =>
  nodes.flatMap((node) =>
    'value' in node
      ? [`${(indent + node.label).padEnd(COLON_AT)}: ${node.value || 'None'}`]
      : [indent + node.label, ...textLines(node.inner, `${indent}    `)],
  )

/** `nvidia-smi -q` */
export const textLog = (gpus: readonly Gpu[], now: Date): string =>
  [
    '',
    '==============NVSMI LOG==============',
    '',
    ...textLines(headOf(gpus.length, now), ''),
    ...gpus.flatMap((gpu) => [
      `GPU ${shown(gpu, 'pci.bus_id')}`,
      ...textLines(gpuOf(gpu), '    '),
      '',
    ]),
  ].join('\n')

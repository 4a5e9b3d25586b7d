/** What the simulated models say: sentences with a slot `{}` for words of the prompt. */
export type Language = 'en' | 'zh'

export type Corpus = { readonly thinking: readonly string[]; readonly answer: readonly string[] }

export const CORPUS: Readonly<Record<Language, Corpus>> = {
  en: {
    thinking: [
      'Okay, the user is asking about {}.',
      ' Let me think about what they really need here.',
      ' First, I should restate the question in my own words.',
      ' There are two ways to read {}, and the first seems more likely.',
      ' Wait, maybe I should check that assumption before going on.',
      ' If I break it down, there are three parts to consider.',
      ' The first part is straightforward, so I will keep it short.',
      ' The second part depends on how {} is used in practice.',
      ' Hmm, a small example would make this much clearer.',
      ' Let me verify the numbers once more: they add up.',
      ' Alternatively, I could start from the result and work backwards.',
      ' That does not change the conclusion, but it is worth a remark.',
      ' I think the answer should begin with the main point.',
      ' Then I can add the details and one caveat at the end.\n\n',
    ],
    answer: [
      'In short, {} comes down to a few simple ideas.',
      ' The main point is that each part has one clear purpose.',
      ' Start with the smallest case that shows the effect.',
      ' Once it works, increase the load step by step and watch what changes.',
      ' A good rule is to measure before and after every change.',
      '\n\n1. Write down what you expect.\n',
      '2. Try it on a small scale.\n',
      '3. Compare the result with the expectation.\n\n',
      ' With {}, the order of these steps matters more than their speed.',
      ' Keep in mind that memory and bandwidth are different limits.',
      ' If one of them is reached, adding more of the other does not help.',
      ' For most uses the default is a sensible choice.',
      ' There is one exception: very long inputs need more room.',
      ' A short example: ten requests of the same size finish at about the same time.',
      ' This is why {} is usually planned from the largest case downwards.',
      ' If you tell me more about your setting, I can be more specific.',
    ],
  },
  zh: {
    thinking: [
      '好的，用户的问题是关于{}的。',
      '我先理一理思路，看看真正需要回答的是什么。',
      '首先，把问题用自己的话重新说一遍。',
      '这里有两种理解方式，第一种更合理一些。',
      '等一下，我需要先核实这个假设。',
      '把它拆开来看，大致可以分成三个部分。',
      '第一部分比较简单，可以一笔带过。',
      '第二部分取决于{}在实际中怎么使用。',
      '嗯，举一个小例子会更清楚。',
      '再核对一遍数字，结果是一致的。',
      '换一个角度，也可以从结论倒推回来。',
      '结论没有变化，不过值得补充说明一下。',
      '回答应该先给出要点，再补充细节和注意事项。\n\n',
    ],
    answer: [
      '简单来说，{}可以归结为几个要点。',
      '核心在于每个部分都有明确的作用。',
      '建议先从最小的例子开始，观察它的效果。',
      '确认没有问题以后，再逐步增加负载。',
      '每次改动前后都要测量，这样才能知道变化来自哪里。',
      '\n\n1. 先写下预期的结果。\n',
      '2. 在小范围内进行尝试。\n',
      '3. 把结果和预期进行对比。\n\n',
      '对于{}来说，步骤的顺序比速度更重要。',
      '需要注意的是，显存和带宽是两种不同的限制。',
      '如果其中一项已经用满，增加另一项并不会有帮助。',
      '在大多数情况下，默认设置就是合理的选择。',
      '有一个例外：特别长的输入需要更多的空间。',
      '因此，规划{}时通常从最大的情况开始考虑。',
      '如果您能提供更多背景，我可以给出更具体的建议。',
    ],
  },
}

/** More Chinese than Latin letters in the last words of the prompt means Chinese. */
export const languageOf = (text: string): Language => {
  const sample = text.slice(-2000)
  const chinese = sample.match(/[\u3400-\u9fff]/g)?.length ?? 0
  const latin = sample.match(/[A-Za-z]{2,}/g)?.length ?? 0
  return chinese > latin ? 'zh' : 'en'
}

/** A few words of the prompt to speak about. */
export const topicOf = (text: string, language: Language): string => {
  const sample = text.slice(-600)
  if (language === 'zh') {
    const runs = sample.match(/[\u3400-\u9fff]{2,8}/g) ?? []
    return runs.toSorted((a, b) => b.length - a.length)[0] ?? '这个问题'
  }
  const words = (sample.match(/[A-Za-z][A-Za-z-]{3,}/g) ?? []).filter((word) => !STOP.has(word))
  return words.slice(-3).join(' ') || 'this question'
}

const STOP = new Set([
  'about',
  'please',
  'what',
  'with',
  'that',
  'this',
  'tell',
  'write',
  'from',
  'have',
  'which',
  'when',
  'your',
])

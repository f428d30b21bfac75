"""The interface's words in English and Chinese. Names of classes, files and machines are nobody's to translate.

Both languages stand in the page, each in its own element; the style sheet shows one of them.
"""

from __future__ import annotations

import html
from typing import Any

from outdo.evaluation.page.markup import Markup, h, inert, join, name, shorten, text

LANGUAGES = (("en", "en", "English"), ("zh", "zh-Hans", "中文"))  # class, lang attribute, its name in itself

WORDS: dict[str, tuple[str, str]] = {
    # the head
    "headline.better": (
        "Better: {after} reaches {new} {axis}, {before} {old}.",
        "更好：{after}的{axis}为 {new}，{before}为 {old}。",
    ),
    "headline.worse": (
        "Worse: {after} reaches {new} {axis}, {before} {old}.",
        "更差：{after}的{axis}为 {new}，{before}为 {old}。",
    ),
    "headline.no difference shown": (
        "No difference shown: {after} reaches {new} {axis}, {before} {old}.",
        "未显示差异：{after}的{axis}为 {new}，{before}为 {old}。",
    ),
    "headline.equivalent": (
        "Equivalent: {after} reaches {new} {axis}, {before} {old}.",
        "等价：{after}的{axis}为 {new}，{before}为 {old}。",
    ),
    "headline.alone": ("Not compared: {after} reaches {new} {axis}.", "未作比较：{after}的{axis}为 {new}。"),
    "headline.nothing": ("Nothing was compared.", "没有可比较的结果。"),
    "points": ("{signed} points", " {signed} 个百分点"),
    "figures.all": ("{difference} {interval}, p {p}, n = {n}.", "{difference} {interval}，p {p}，n = {n}。"),
    "tally": (
        "Better on {better}, worse on {worse}, equivalent on {equivalent}, no difference shown on {none} of {all} "
        "axes.",
        "共 {all} 个维度：更好 {better}，更差 {worse}，等价 {equivalent}，未显示差异 {none}。",
    ),
    "opened once": ("The test set was opened once.", "测试集只打开过一次。"),
    "opened often": (
        "The test set has been opened {times} times: read the figures as optimistic.",
        "测试集已打开 {times} 次：这些数字偏乐观。",
    ),
    "despite.corrected": (
        "{axes}: no difference is shown though the interval excludes 0. It is that of one axis by itself, and p, "
        "corrected for all axes, is not below 0.05.",
        "{axes}：区间不含 0，却未显示差异；区间只针对单一维度，而对所有维度校正后的 p 不低于 0.05。",
    ),
    "despite.tolerated": (
        "{axes}: no difference is shown though the interval excludes 0. So small a one does not count here.",
        "{axes}：区间不含 0，却未显示差异；如此小的差异在此不计。",
    ),
    "judged": (
        "{n} models have been judged on this test set: the best of them looks better than it is.",
        "已有 {n} 个模型在此测试集上评判过：其中最好的看起来比实际更好。",
    ),
    "summary": (
        "Of {n} sealed test examples, {gained} that were wrong before are right now, and {lost} that were right are "
        "wrong.",
        "在 {n} 个封存的测试样本中，{gained} 个由错变对，{lost} 个由对变错。",
    ),
    "language": ("Language", "语言"),
    "contents": ("Contents", "目录"),
    # section titles
    "results": ("Verdict by axis", "各维度结论"),
    "gate": ("The gate", "门槛"),
    "gained": ("Gained", "由错变对"),
    "lost": ("Lost", "由对变错"),
    "classes": ("Class by class", "各类别"),
    "calibration": ("Calibration", "置信度校准"),
    "training": ("Training", "训练过程"),
    "decisions": ("What was decided, and why", "做了哪些选择，为什么"),
    "baselines": ("Baselines and rivals", "基线与对手"),
    "data": ("What the data check found", "数据检查结果"),
    "search": ("Search", "搜索"),
    "suspects": ("Suspect labels", "可疑标签"),
    "doubtful": ("Test labels to look at", "值得复查的测试标签"),
    "corruption": ("Under corruption", "受损图像与文本"),
    "slices": ("Slice by slice", "各切片"),
    "attack": ("Under attack", "对抗攻击"),
    "selective": ("Answering only when sure", "只在有把握时回答"),
    "privacy": ("What is remembered", "记住了什么"),
    "reproduce": ("To reproduce", "如何复现"),
    # notes in the margin
    "results.note": (
        "Both sides answered the same {n} sealed test examples. Intervals are paired, each for its axis alone; "
        "p-values are corrected for the number of axes. Differences of percentages are in points.",
        "双方回答同样的 {n} 个封存测试样本。区间为配对区间，各维度单独计算；p 值已按维度数校正，百分比之差以百分点计。",
    ),
    "detectable": (
        "With as many examples as these, and as many on which the two differ, a difference of accuracies under "
        "{points} cannot be told from chance.",
        "以这样的样本量和双方分歧的样本数，小于{points}的准确率之差无法与偶然区分。",
    ),
    "margin": (
        "Differences within {margin} count as equivalent: in the axis' unit, relative for times, sizes and rates.",
        "在 {margin} 以内的差异视为等价：按该维度的单位计，时间、体积和速率按相对值计。",
    ),
    "gate.note": (
        "What was required of the challenger. It passes when everything is met.",
        "对挑战者的要求。全部满足才通过。",
    ),
    "promote": ("Promote.", "通过。"),
    "do not promote": ("Do not promote.", "不通过。"),
    "required": ("required", "要求"),
    "why": ("why", "原因"),
    "met": ("met", "满足"),
    "not met": ("not met", "未满足"),
    "gained.note": (
        "Wrong before, right after: {n}. The most confidently wrong come first.",
        "之前答错、现在答对：{n} 个。错得最自信的排在最前。",
    ),
    "lost.note": (
        "Right before, wrong after: {n}. The most confidently wrong come first.",
        "之前答对、现在答错：{n} 个。错得最自信的排在最前。",
    ),
    "looks.images": (
        "Lit in the small pictures: what spoke for that side's answer (Grad-CAM). It shows where, not why.",
        "小图中亮处：支持该方回答的区域（Grad-CAM）。只说明在哪里，不说明为什么。",
    ),
    "looks.texts": (
        "Marked: words without which that side's answer would be less probable; underlined: more probable.",
        "标记的词：去掉后该方回答的概率会下降；带下划线的：会上升。",
    ),
    "gained.none": ("No example was gained.", "没有由错变对的样本。"),
    "lost.none": ("No example was lost.", "没有由对变错的样本。"),
    "classes.note": (
        "The share of each class's test examples that is answered correctly, before and after. A class with few "
        "examples moves by chance.",
        "每个类别的测试样本中答对的比例，之前与之后。样本少的类别会随机波动。",
    ),
    "calibration.note": (
        "How often an answer is right, against how sure it was. On the diagonal, 80 % sure means right 8 times in 10; "
        "below it the model is too sure. A larger mark stands for more examples.",
        "答对的频率与自信程度的对比。在对角线上，80 % 的把握意味着十次对八次；在其下方表示过于自信。点越大，样本越多。",
    ),
    "training.note": (
        "Each pass over the training set. Validation chose; the test set had no part in it.",
        "训练集上的每一轮。一切选择依据验证集，测试集未参与。",
    ),
    "decisions.note": (
        "What was tried, in order, scored on validation.",
        "按顺序尝试的内容，在验证集上打分。",
    ),
    "baselines.note": (
        "Everyone who answered the same test, and {after} against each of them.",
        "所有回答同一测试的模型，以及{after}与它们各自的对比。",
    ),
    "suspects.note": (
        "Labels that the other examples contradict. A list to look at: nothing was changed.",
        "与其他样本相矛盾的标签。仅供查看，未做任何改动。",
    ),
    "reproduce.note": (
        "What this result was made from. Times and memory belong to this machine.",
        "本结果由此得来。时间与内存数据只针对这台机器。",
    ),
    "search.note": (
        "Recipes that were tried, trained from cached activations and scored on validation. Unpromising ones were "
        "stopped early. The best were trained again with other examples held out, because the best of many is partly "
        "lucky.",
        "尝试过的配方：从缓存的激活值训练，在验证集上打分。没有希望的提前停止。最好的几个换用另一批留出样本重新训练，因为多次尝试中的最优者部分靠运气。",
    ),
    "search.summary": (
        "{trials} trials by {sampler}: {states}, in {seconds}.",
        "{sampler} 共进行 {trials} 次试验：{states}，用时 {seconds}。",
    ),
    "search.optimism": (
        "The best trial gained {claimed} nats over the default recipe where it was chosen, and {confirmed} on examples "
        "that had no part in choosing it: {optimism} was optimism.",
        "最优试验在用于挑选的样本上比默认配方好 {claimed} 纳特，在未参与挑选的样本上好 {confirmed}："
        "其中 {optimism} 为乐观偏差。",
    ),
    "doubtful.note": (
        "Both sides give the same other answer, and so do most of the nearest training examples. The label may be "
        "wrong, or the example may be hard. It counts as a mistake either way.",
        "双方给出同一个不同于标签的答案，最相近的训练样本也大多如此。可能是标签有误，也可能是样本困难；无论如何都计为错误。",
    ),
    "corruption.note": (
        "The test's {of} examples gave {spoilt} spoilt ones; every kind and severity has its share. A single kind has "
        "few and was not tested by itself.",
        "由 {of} 个测试样本生成 {spoilt} 个受损样本，各种类型与强度均匀分配。单一类型的样本很少，未单独检验。",
    ),
    "corruption.chart": ("Answered correctly, by kind of corruption", "各类损坏下的答对比例"),
    "corruption.mce": (
        "Mean corruption error of after, relative to before: {mce}. Below 1 is better.",
        "之后相对于之前的平均损坏误差：{mce}。小于 1 为更好。",
    ),
    "severity": ("severity", "强度"),
    "slice": ("slice", "切片"),
    "slices.note": (
        "The share answered correctly for each value of each other column of the data. A slice with few examples moves "
        "by chance, and none was tested by itself.",
        "按数据其他各列的取值统计答对比例。样本少的切片会随机波动，均未单独检验。",
    ),
    "slices.chart": (
        "Answered correctly: {shown} of {n} slices, largest loss first",
        "答对比例：{n} 个切片中的 {shown} 个，损失最大者在前",
    ),
    "all slices": ("All {n} slices", "全部 {n} 个切片"),
    "attack.note": (
        "The share still answered correctly after PGD, Auto-PGD and Square, each allowed to change every pixel value "
        "by as much. An upper bound: another attack may find more.",
        "在 PGD、Auto-PGD 和 Square 攻击之后仍答对的比例，每个像素值最多可改变这么多。这是上界，其他攻击可能更强。",
    ),
    "attack.flags": (
        "A flag says that gradients mislead the attacks, and that the figure is not to be trusted.",
        "警示表示梯度误导了攻击，数字不可信。",
    ),
    "eps": ("pixels changed by at most", "像素最大改变量"),
    "privacy.note": (
        "How well an attacker tells training examples from test examples by the model's answers: 50 % is guessing. "
        "Found surely: the share of training examples recognised with 1 % of false alarms; 1 % is chance.",
        "攻击者凭模型的回答区分训练样本与测试样本的能力：50 % 等于猜测。"
        "可靠识别：误报率 1 % 时被认出的训练样本比例，1 % 等于偶然。",
    ),
    "membership": ("attack", "攻击方式"),
    "told apart": ("told apart,", "区分率，"),
    "found surely": ("found surely,", "可靠识别，"),
    "by loss": ("by loss", "按损失"),
    "by likelihood ratio": ("by likelihood ratio", "按似然比"),
    "selective.note": (
        "The threshold was chosen on validation, the shares are of the test. An estimate, not a guarantee.",
        "阈值在验证集上选定，比例为测试集上的结果。是估计，不是保证。",
    ),
    "wanted": ("right answers wanted", "期望的正确率"),
    "threshold": ("answer from confidence", "回答的把握阈值"),
    "answered": ("answered", "回答的比例"),
    "of them right": ("of them right", "其中答对"),
    "unreachable": ("not reached", "达不到"),
    "both answer": ("both answer", "双方回答"),
    "agreeing": ("nearest that agree", "一致的近邻"),
    "nearest": ("nearest in training: {labels}; first {first}", "最相近的训练样本：{labels}；首个 {first}"),
    "looked.before": ("before looked here", "之前关注处"),
    "looked.after": ("after looked here", "之后关注处"),
    "weighed.before": ("before:", "之前："),
    "weighed.after": ("after:", "之后："),
    "resources": ("taken by training", "训练所耗"),
    "spent": ("{cpu} of CPU time, {energy} Wh ({how})", "CPU 时间 {cpu}，{energy} Wh（{how}）"),
    # tables and charts
    "axis": ("axis", "维度"),
    "before": ("before", "之前"),
    "after": ("after", "之后"),
    "difference": ("difference [95 % interval]", "差异 [95 % 区间]"),
    "verdict": ("verdict", "结论"),
    "methods": ("What each axis measures, and how it was tested", "每个维度测量什么，如何检验"),
    "measures": ("measures", "测量内容"),
    "tested": ("tested by", "检验方法"),
    "uncorrected": ("p before correction", "校正前 p"),
    "lower": ("lower is better", "越低越好"),
    "verdict.better": ("better", "更好"),
    "verdict.worse": ("worse", "更差"),
    "verdict.no difference shown": ("no difference shown", "未显示差异"),
    "verdict.equivalent": ("equivalent", "等价"),
    "forest.points": (
        "Difference with its 95 % interval, in points, turned so that right is better",
        "差异及其 95 % 区间（百分点），右侧为更好",
    ),
    "forest.relative": (
        "Difference with its 95 % interval, relative to before, turned so that right is better",
        "相对于之前的差异及其 95 % 区间，右侧为更好",
    ),
    "better": ("better", "更好"),
    "worse": ("worse", "更差"),
    "truth": ("truth", "真值"),
    "class": ("class", "类别"),
    "correct before": ("correct before", "之前答对"),
    "correct after": ("correct after", "之后答对"),
    "change": ("change", "变化"),
    "example": ("example", "样本"),
    "figures": ("The figures behind this chart", "图中数据"),
    "all classes": ("All {n} classes", "全部 {n} 个类别"),
    "all examples": ("All {n} as a table", "全部 {n} 个（表格）"),
    "first of": ("The first {shown} of {n} as a table", "前 {shown} 个（共 {n} 个，表格）"),
    "class chart": ("Answered correctly, by class", "各类别答对比例"),
    "class chart.some": (
        "Answered correctly: the {shown} of {n} classes that changed most",
        "变化最大的 {shown} 个类别（共 {n} 个）的答对比例",
    ),
    "confusion": ("Confusion, {side}", "混淆矩阵（{side}）"),
    "confusion.table": (
        "Rows are the truth, columns the answer; mistakes stand off the diagonal, darker the more of their class they "
        "are.",
        "行为真值，列为回答；对角线之外为错误，占该类比例越大颜色越深。",
    ),
    "confusion.most": ("The most frequent confusions, {side}", "最常见的混淆（{side}）"),
    "appeared": ("Confusions that grew", "增多的混淆"),
    "vanished": ("Confusions that shrank", "减少的混淆"),
    "none": ("none", "无"),
    "of": ("{before} → {after} of {n}", "{n} 中 {before} → {after}"),
    "count": ("count", "次数"),
    "mistake": ("mistake", "错误"),
    "mistaken": ("{truth} taken for {answer}", "{truth} 被当作 {answer}"),
    "reliability": ("{side}: calibration error {error}", "{side}：校准误差 {error}"),
    "confidence": ("how sure", "把握"),
    "accuracy": ("how often right", "答对频率"),
    "bin": ("confidence", "置信度区间"),
    "loss": ("Loss", "损失"),
    "train_loss": ("training", "训练"),
    "validation_loss": ("validation", "验证"),
    "validation_accuracy": ("Accuracy on validation", "验证集准确率"),
    "epoch": ("epoch", "轮次"),
    "validation": ("validation", "验证集"),
    "rung": ("step", "步骤"),
    "words": ("what happened", "经过"),
    "seconds": ("time", "用时"),
    "contestant": ("contestant", "参赛者"),
    "role": ("role", "角色"),
    "against": ("{after} against it", "{after}与之相比"),
    "all axes": ("All contestants on all axes", "所有参赛者的所有维度"),
    "role.before": ("before", "之前"),
    "role.after": ("after", "之后"),
    "role.baseline": ("baseline", "基线"),
    "role.rival": ("rival", "对手"),
    "split.train": ("training", "训练"),
    "split.validation": ("validation", "验证"),
    "split.test": ("test", "测试"),
    "severity.note": ("note", "提示"),
    "severity.warning": ("warning", "警告"),
    "severity.removed": ("removed", "已移除"),
    "found": ("what was found", "发现"),
    "files": ("Which", "哪些"),
    "more": ("and {n} more", "另有 {n} 个"),
    "clean": ("The check found nothing to report.", "检查未发现问题。"),
    "source": ("data", "数据"),
    "fingerprint": ("fingerprint", "指纹"),
    "examples": ("examples", "样本数"),
    "seed": ("seed", "随机种子"),
    "times opened": ("test opened", "测试集打开次数"),
    "version": ("outdo", "outdo"),
    "machine": ("machine", "机器"),
    "stages": ("time taken", "用时"),
    "recipe": ("Recipe", "配方"),
    "trial": ("trial", "试验"),
    "trials": (
        "Validation loss of each trial (filled where it was trained to its end), and the best so far",
        "各次试验的验证损失（实心为训练到底），以及迄今最优",
    ),
    "trial.default": ("default recipe", "默认配方"),
    "trial.chosen": (" chosen", " 选中"),
    "ended.complete": ("complete", "完成"),
    "ended.stopped early": ("stopped early", "提前停止"),
    "ended.failed": ("failed", "失败"),
    "all trials": ("All {n} trials", "全部 {n} 次试验"),
    "loss.first": ("loss, first fold", "损失，第一折"),
    "loss.second": ("second fold", "第二折"),
    "accuracy.first": ("accuracy, first fold", "准确率，第一折"),
    "accuracy.second": ("second fold", "第二折"),
    "importance": ("How much each choice mattered", "各项选择的影响程度"),
    "front": ("No other trial is both better and faster than these", "没有其他试验同时优于且快于以下各项"),
    "latency": ("one image", "单张图像"),
    "flags": ("ask for it by", "对应参数"),
    # terms that a report uses as names
    "axis.accuracy": ("accuracy", "准确率"),
    "axis.macro_f1": ("macro-F1", "宏平均 F1"),
    "axis.worst_class": ("worst class", "最差类别"),
    "axis.calibration_error": ("calibration error", "校准误差"),
    "axis.nll": ("log loss", "对数损失"),
    "axis.brier": ("Brier score", "Brier 分数"),
    "axis.latency": ("latency", "延迟"),
    "axis.throughput": ("throughput", "吞吐量"),
    "axis.memory": ("memory", "内存"),
    "axis.size": ("size", "体积"),
    "axis.corruption": ("under corruption", "受损时准确率"),
    "axis.adversarial": ("under attack", "受攻击时准确率"),
    "axis.selective_risk": ("selective risk", "选择性风险"),
    "axis.privacy": ("privacy leak", "隐私泄露"),
    "kind.gaussian_noise": ("gaussian noise", "高斯噪声"),
    "kind.shot_noise": ("shot noise", "散粒噪声"),
    "kind.impulse_noise": ("impulse noise", "脉冲噪声"),
    "kind.defocus_blur": ("defocus blur", "失焦"),
    "kind.glass_blur": ("glass blur", "毛玻璃"),
    "kind.motion_blur": ("motion blur", "运动模糊"),
    "kind.zoom_blur": ("zoom blur", "变焦模糊"),
    "kind.snow": ("snow", "雪"),
    "kind.frost": ("frost", "霜"),
    "kind.fog": ("fog", "雾"),
    "kind.brightness": ("brightness", "过亮"),
    "kind.contrast": ("contrast", "低对比度"),
    "kind.elastic_transform": ("elastic transform", "弹性变形"),
    "kind.pixelate": ("pixelate", "像素化"),
    "kind.jpeg_compression": ("JPEG compression", "JPEG 压缩"),
    "kind.speckle_noise": ("speckle noise", "斑点噪声"),
    "kind.gaussian_blur": ("gaussian blur", "高斯模糊"),
    "kind.spatter": ("spatter", "飞溅"),
    "kind.saturate": ("saturate", "饱和度"),
    "kind.typos": ("typos", "错字"),
    "kind.keyboard": ("keyboard", "键盘误触"),
    "kind.ocr": ("misreadings", "识别错误"),
    "kind.casing": ("casing", "大小写"),
    "kind.dropped_words": ("dropped words", "漏词"),
    "axis.multiply_adds": ("multiply-adds", "乘加运算"),
    "task.image_classification": ("image classification", "图像分类"),
    "task.text_classification": ("text classification", "文本分类"),
    "rung.task": ("task", "任务"),
    "rung.check": ("check", "检查"),
    "rung.backbone": ("backbone", "主干网络"),
    "rung.baseline": ("baseline", "基线"),
    "rung.probe": ("probe", "探针"),
    "rung.plan": ("plan", "计划"),
    "rung.fine-tune": ("fine-tune", "微调"),
    "rung.search": ("search", "搜索"),
    "rung.choice": ("choice", "选择"),
    "name.linear probe": ("linear probe", "线性探针"),
    "name.linear probe (not outdone)": ("linear probe (not outdone)", "线性探针（未被超过）"),
    "name.fine-tuned": ("fine-tuned", "微调模型"),
    "name.searched": ("searched", "搜索所得"),
    "name.searched, fine-tuned": ("searched, fine-tuned", "搜索所得，微调"),
    "name.default recipe": ("default recipe", "默认配方"),
    "name.majority class": ("majority class", "多数类"),
    "name.nearest neighbours": ("nearest neighbours", "k 近邻"),
    "name.better probe": ("better probe", "更好的探针"),
    "name.small network from scratch": ("small network from scratch", "从零训练的小网络"),
    "name.plain full fine-tune": ("plain full fine-tune", "普通全量微调"),
}


def pair(english: Any, chinese: Any, inside: str = "span") -> Markup:
    """The same thing in both languages; `tspan` when it stands in a drawing."""
    return join(h(inside, words, class_=code, lang=tag)
                for (code, tag, _), words in zip(LANGUAGES, (english, chinese), strict=True))


def say(key: str, /, inside: str = "span", **figures: Any) -> Markup:
    """The words of a key in every language, with `figures` put in."""
    filled = {name: text(value) for name, value in figures.items()}
    english, chinese = (Markup(html.escape(words, quote=False).format(**filled)) for words in WORDS[key])
    return pair(english, chinese, inside)


def term(kind: str, value: Any, inside: str = "span", title: Any = None) -> Markup:
    """A name that reports use (an axis, a role, a verdict): `title` or itself in English, in Chinese where known."""
    key = f"{kind}.{value}"
    if key in WORDS:
        return pair(WORDS[key][0] if title is None else title, WORDS[key][1], inside)
    shown = value if title is None else title
    return text(shorten(inert(shown), 40)) if inside == "tspan" else name(shown)

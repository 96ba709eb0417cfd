"""The texts of the page, in English and Vietnamese."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

LANGUAGES = {"vi": "Tiếng Việt", "en": "English"}
DEFAULT = "en"


@dataclass(frozen=True)
class Words:
    """All words of the page in one language; `{names}` are filled in by `str.format`."""

    title: str
    lead: str
    about: str
    figures: str
    about_figures: str
    about_languages: Mapping[str, str]
    starter: str
    wait: str
    stage: str
    examples: str
    share: str
    shared: str
    pixels_tab: str
    clip_tab: str
    compare_tab: str
    library_tab: str
    code_tab: str
    course_tab: str
    query_picture: str
    drop: str
    part: str
    part_by_touch: str
    likes: str
    like: str
    dislike: str
    mean_of_likes: str
    more: str
    blindness: str
    transforms: Mapping[str, str]
    blind_to: Mapping[str, str]
    sees_all: str
    find_dethroning: str
    changed_query: str
    ranking_stays: str
    ranking_moves: str
    as_stated: str
    breaks_statement: str
    clipped: str
    dethroning_columns: tuple[str, str, str]
    never: str
    only_by_clipping: str
    metric: str
    metrics: Mapping[str, str]
    rewards: Mapping[str, str]
    smaller: str
    larger: str
    k: str
    first: str
    pixels_status: str
    rows_scanned: str
    clip_status: str
    metric_on_embeddings: str
    alike: str
    matches: str
    no_matches: str
    all_match: str
    matches_meaning: str
    go_on: str
    save: str
    why: str
    why_rank: str
    why_query: str
    why_hit: str
    why_map: str
    why_pixels: Mapping[str, str]
    why_clip: str
    text: str
    text_example: str
    negative: str
    negative_example: str
    weight: str
    labels: str
    search: str
    suggestions: str
    suggested: tuple[str, ...]
    compare: str
    compare_agrees: str
    compare_label: str
    all_labels: str
    label: str
    page: str
    previous: str
    next: str
    browse: str
    evaluation: str
    evaluation_lead: str
    evaluation_none: str
    evaluation_captions: str
    evaluation_held_out: str
    filtered: str
    filtered_part: str
    languages: Mapping[str, str]
    description: str
    method: str
    precision: str
    by_label: str
    map: str
    map_lead: str
    map_keys: str
    map_touch: str
    zoom_in: str
    zoom_out: str
    whole_map: str
    lasso: str
    mark_view: str
    marked: str
    not_on_map: str
    marked_labels: str
    other_labels: str
    search_area: str
    unmark: str
    only_in_area: str
    duplicates: str
    duplicates_lead: str
    duplicates_none: str
    duplicates_kinds: Mapping[str, str]
    course_text: str
    worked_lead: str
    worked_score: str
    overflow: str
    remarks: str
    privacy: str
    programs: str
    programs_mcp: str


_EN_LANGUAGES = {"en": "English", "vi": "Vietnamese", "*": "about a hundred languages"}
_VI_LANGUAGES = {"en": "tiếng Anh", "vi": "tiếng Việt", "*": "khoảng một trăm ngôn ngữ"}

EN = Words(
    title="Image retrieval with basic maths",
    lead="Give a picture and see the most similar ones of a library: by four formulas on its pixels, or by what CLIP "
    "understands of it.",
    about="**{count}** pictures from `{library}`; ask with a picture, or with words in {languages}.",
    figures="How exact?",
    about_figures="The four metrics compare every picture, so their answers are exact. CLIP's embeddings, by the encoder {encoder}, are "
    "searched by an index that finds {recall:.2%} of the true {k} nearest (ef_search {ef_search}).",
    about_languages=_EN_LANGUAGES,
    starter="`starter` is the small encoder that comes along: it knows what a picture shows, and short English and Vietnamese. The "
    "full CLIP, trained on two billion pictures with their texts, also follows whole sentences, style and setting.",
    wait="The library is being made ready …",
    stage="Making the library ready: {stage}",
    examples="Click an example, or give a picture of your own below",
    share="Copy the link",
    shared="Copied",
    pixels_tab="Pixels",
    clip_tab="CLIP",
    compare_tab="Compare",
    library_tab="Library",
    code_tab="Code",
    course_tab="Learn",
    query_picture="Query picture",
    drop="Drop a picture here, or click to choose one",
    part="Drag over the picture to search with that part of it (keys: + − ← → ↑ ↓); a click, or Esc, takes the whole again.",
    part_by_touch="Draw with a finger over the picture to search with that part of it; a tap takes the whole again.",
    likes="Also (♥) and not (✕); a click takes one away",
    like="Also like this one",
    dislike="Not like this one",
    mean_of_likes="for the mean of all the pictures",
    more="{count} more",
    blindness="What this metric cannot see",
    transforms={
        "shift": "Shift (of the side)",
        "crop": "Crop (at each edge)",
        "contrast": "Contrast, a in a·x",
        "brightness": "Brightness, b in x + b",
        "noise": "Noise (deviation)",
    },
    blind_to={
        "blind_to_length": "Cosine cannot see **contrast**: it divides by the length of the query, so a·x with a > 0 ranks as x does, as "
        "long as no value is clipped at 255.",
        "blind_to_spread": "Correlation cannot see **contrast**: a·x with a > 0 has the same correlations as x, as long as no value is "
        "clipped at 255.",
        "blind_to_mean": "Correlation cannot see **brightness**: it takes the mean off first, so x + b ranks as x does, as long as no "
        "value is clipped at 0 or 255.",
    },
    sees_all="{metric} sees every one of these changes: each can change the ranking.",
    find_dethroning="Find the smallest change that dethrones the first hit",
    changed_query="the changed query",
    ranking_stays="**The ranking stays**: the first {count} are the same, in the same order.",
    ranking_moves="**The ranking moves**: {kept} of the first {count} are still there; the first is now: {first}.",
    as_stated="It cannot move, as stated.",
    breaks_statement="Values are clipped at 0 or 255, so the statement does not hold here.",
    clipped="Values are clipped at 0 or 255.",
    dethroning_columns=("Change", "The first hit falls at", "Then the first is"),
    never="never, from {low:g} to {high:g}",
    only_by_clipping="values are clipped there",
    metric="Metric",
    metrics={"l1": "L1", "l2": "L2", "cosine": "Cosine", "correlation": "Correlation", "clip": "CLIP"},
    rewards={
        "l1": "Adds up how far each pixel's colour is from the other's: rewards pictures of the same colours in the "
        "same places, and forgives a few pixels that are far off.",
        "l2": "Squares each difference first: a few large differences count for more than many small ones, so large "
        "areas of the same brightness decide.",
        "cosine": "Compares the directions of the two vectors, not their lengths: a darker copy of a picture is as "
        "close as the picture. Two bright pictures are always rather close.",
        "correlation": "Cosine after the mean is taken off: neither brightness nor contrast counts, only where a "
        "picture is lighter or darker than its mean.",
        "clip": "Compares what a trained network sees in the two pictures: their content, wherever it stands.",
    },
    smaller="Smaller is closer; 0 is the same picture.",
    larger="Larger is closer; 1 is the best there is.",
    k="How many pictures (k)",
    first="Choose an example or give a picture: the most similar ones appear here.",
    pixels_status="**{hits}** best of {count} pictures by **{metric}**{scanned} · {ms:.1f} ms",
    rows_scanned=" · only {rows_scanned} had to be compared in full",
    clip_status="**{hits}** best of {count} pictures by **CLIP{metric}** · {ms:.0f} ms",
    metric_on_embeddings="Compare the embeddings by",
    alike="L2 and cosine rank alike here, as |a − b|² = 2 − 2 a·b for vectors of length 1.",
    matches="**sure matches: the first {count}**; a query without a match here finds hits as good as the others",
    no_matches="**no sure match**: a query without a match here finds hits as good",
    all_match="**all are sure matches**",
    matches_meaning="*Sure match*: of the queries whose label is not in the library, at most one in ten gets one, on average over "
    "labels like these; not for each label.",
    go_on="Click a picture to search for more like it.",
    save="Save as",
    why="See why: choose a hit",
    why_rank="the hit",
    why_query="the query, as the metric sees it",
    why_hit="the hit, as the metric sees it",
    why_map="where the score comes from",
    why_pixels={
        "l1": "Each square is |a − b| of one pixel. All squares together are the score, {total:,.0f}: the warmer, the "
        "more it adds to the distance.",
        "l2": "Each square is (a − b)² of one pixel. Together they are {total:,.0f}, and the root of that is the score, "
        "{score:,.0f}: the warmer, the more it adds to the distance.",
        "cosine": "Each square is a·b of one pixel over both lengths. Together they are the score, {score:.4f}: the "
        "warmer, the more it adds to the similarity. Bright areas decide.",
        "correlation": "Each square is the product of both pixels' distances from their means. Together they are the "
        "score, {score:.4f}: warm where both are on the same side of the mean, cool where they are not.",
    },
    why_clip="Occlusion: each part of the hit was covered in turn. Warm: without it the cosine similarity of {score:.3f} falls, "
    "by {drop:.3f} at most. Cool: it rises.",
    text="Text",
    text_example="a red flower",
    negative="But not",
    negative_example="a tree",
    weight="Weight of the text, where a picture is given, too",
    labels="Only these labels",
    search="Search",
    suggestions="Texts to try",
    suggested=("a red flower", "a big cat with stripes", "a musical instrument", "a ship at sea", "an elephant"),
    compare="One query, all five methods.",
    compare_agrees="● also found by CLIP",
    compare_label="✓ of the query's label, {label}",
    all_labels="all",
    label="Label",
    page="Page",
    previous="Previous",
    next="Next",
    browse="{count} pictures, page {page} of {pages}. Click a picture to search for more like it.",
    evaluation="How good are the answers?",
    evaluation_lead="Each of {queries} pictures of the library in turn is the query. Precision@k: how many of the k "
    "best other pictures have its label. mAP: the same over all ranks.",
    evaluation_none="This library has no labels, so there is nothing to measure the answers against.",
    evaluation_held_out="{queries} pictures that are not in the library, the examples above among them, as queries against "
    "all of it:",
    filtered="CLIP within labels compares every picture that has one of them, so its answers are exact. Chroma's own search by "
    "labels would find {parts}.",
    filtered_part="{recall:.2%} of the true {k} nearest in {share} of the library ({rows} pictures)",
    evaluation_captions="From a caption in {language} to its picture: among the first ten in {recall:.0%} of cases.",
    languages={"en": "English", "vi": "Vietnamese"},
    description="What was read",
    method="Method",
    precision="Precision@10",
    by_label="By label",
    map="Map of the library",
    map_lead="Pictures that CLIP takes for similar lie close to each other. Click one to search for more like it; the "
    "ring is where the query belongs.",
    map_keys="Wheel: nearer or farther; drag: move. Keys: + − ← → ↑ ↓; Home: the whole map; Enter: search for the picture in the "
    "middle; Esc: remove the mark.",
    map_touch="Two fingers: nearer or farther, or move; one finger: move, once it is nearer.",
    zoom_in="Nearer",
    zoom_out="Farther",
    whole_map="Whole map",
    lasso="Lasso",
    mark_view="Mark what is in view",
    marked="Pictures of the map that are marked and shown: <strong>{marked}</strong>; left out: {left_out}.",
    not_on_map="The map has {on_map} of the library's {count} pictures; those that have no place on it are left out, too.",
    marked_labels="Their labels: {labels}.",
    other_labels="and {count} others",
    search_area="Search only these with CLIP",
    unmark="Remove the mark",
    only_in_area="✕ Only pictures marked on the map: {count}",
    duplicates="Near duplicates",
    duplicates_lead="**{groups}** groups of pictures that are the same, or nearly: {pictures} pictures in all.",
    duplicates_none="No two pictures of this library are the same, or nearly.",
    duplicates_kinds={"exact": "equal", "near": "nearly equal"},
    course_text="""**1. The task.** *Image retrieval*: from a query picture (**input**: a query image and an image
library) to the pictures that are similar to it (**output**: a list, best first).

**2. The data.** The library is a data set of pictures; the tab *Library* shows it.

**3.1 Basic retrieval.** A picture is a vector of its pixels, and similarity is a formula:
3.1.1 **L1**, `absolute_difference()` and `get_l1_score()`; 3.1.2 **L2**, `mean_square_difference()` and
`get_l2_score()`; 3.1.3 **Cosine Similarity**, `cosine_similarity()` and `get_cosine_similarity_score()`;
3.1.4 **Correlation Coefficient**, `correlation_coefficient()` and `get_correlation_coefficient_score()`.
All are in the package `imgret`, under these names. What each of them cannot see (correlation neither brightness nor contrast, cosine no
contrast), the tab *Pixels* shows below its hits.

**3.2 Advanced retrieval.** 3.2.1 A *pretrained deep learning model*, CLIP, turns each picture into an embedding,
`get_single_image_embedding()`; *Chroma*, a vector database, finds the nearest.""",
    worked_lead="**Each number of a formula.** Choose two pictures and a metric. Both are made 8 x 8 grey pixels, a and b; the "
    "third table has the terms that the metric sums.",
    worked_score="score",
    overflow="If a stays `uint8`, its squares overflow at 256: then its length is {overflowed:,.1f} instead of {norm:,.1f}, and its "
    "cosine with itself {score:.2f} instead of 1.",
    remarks="""**Where the numbers of the course's notebook differ from these**
1. Its cosine keeps the query as `uint8`, so squares overflow at 256. A picture may then score 14 against itself instead of 1. All
   scores of a query change by the same factor, so the order stays.
2. Its L2 is the mean of the squares in the code, and the root of their sum in the text. The order is the same, the numbers are not.
3. Its second plot calls the best hit "Top 2".
4. On vectors of length 1, L2 and cosine rank alike, as |a − b|² = 2 − 2 a·b. So its two Chroma collections find the same
   pictures. L1 finds others.""",
    privacy="An uploaded picture is used for your search and deleted within two hours. Nothing is sent anywhere else.",
    programs="""Five endpoints answer JSON: `/search_pixels`, `/search_clip`, `/compare`, `/library` and `/duplicates`. *Use
via API*, at the foot of the page, says what each takes. These programs run as they stand.""",
    programs_mcp="""A language model asks by MCP, with the tools `search_text`, `search_picture`, `search_pixels`,
`compare`, `library` and `duplicates`. It names the hits that it likes, and those that it does not, by their ids, and gets the address
that shows the same hits here. It gives a picture as a public URL, as a `data:` URL, as the path that an upload answered, or as
the id of a hit.""",
)

VI = Words(
    title="Truy vấn hình ảnh dùng các toán cơ bản",
    lead="Đưa vào một hình ảnh và xem những hình giống nó nhất trong thư viện: theo bốn công thức trên các điểm ảnh, "
    "hoặc theo điều mà CLIP hiểu về nó.",
    about="**{count}** hình ảnh từ `{library}`; hãy tìm bằng một hình, hoặc bằng lời {languages}.",
    figures="Chính xác đến đâu?",
    about_figures="Bốn độ đo so với mọi hình, nên kết quả là chính xác. Vector của CLIP, do mô hình {encoder} tạo ra, được tìm bằng một chỉ "
    "mục tìm ra {recall:.2%} trong {k} hình gần nhất thật sự (ef_search {ef_search}).",
    about_languages=_VI_LANGUAGES,
    starter="`starter` là mô hình nhỏ đi kèm: nó biết trong hình có gì, và đọc lời ngắn bằng tiếng Việt và tiếng Anh. CLIP đầy đủ, học từ hai "
    "tỉ hình ảnh có lời, còn hiểu cả câu dài, phong cách và bối cảnh.",
    wait="Đang chuẩn bị thư viện …",
    stage="Đang chuẩn bị thư viện: {stage}",
    examples="Bấm vào một ví dụ, hoặc đưa hình của bạn vào bên dưới",
    share="Chép liên kết",
    shared="Đã chép",
    pixels_tab="Điểm ảnh",
    clip_tab="CLIP",
    compare_tab="So sánh",
    library_tab="Thư viện",
    code_tab="Mã",
    course_tab="Học",
    query_picture="Hình truy vấn",
    drop="Thả hình vào đây, hoặc bấm để chọn",
    part="Kéo chuột trên hình để truy vấn bằng phần đó của hình (phím: + − ← → ↑ ↓); bấm vào hình, hoặc phím Esc, để lấy lại cả hình.",
    part_by_touch="Vuốt ngón tay trên hình để truy vấn bằng phần đó của hình; chạm vào hình để lấy lại cả hình.",
    likes="Giống cả (♥) và không giống (✕); bấm vào hình để bỏ",
    like="Tìm hình giống cả hình này",
    dislike="Tìm hình không giống hình này",
    mean_of_likes="cho trung bình của mọi hình",
    more="Thêm {count} hình",
    blindness="Độ đo này không thấy gì",
    transforms={
        "shift": "Dịch ngang (phần cạnh)",
        "crop": "Cắt mép (phần cạnh)",
        "contrast": "Độ tương phản, a trong a·x",
        "brightness": "Độ sáng, b trong x + b",
        "noise": "Nhiễu (độ lệch chuẩn)",
    },
    blind_to={
        "blind_to_length": "Cosine không thấy **độ tương phản**: nó chia cho độ dài của hình truy vấn, nên a·x với a > 0 cho thứ hạng như "
        "x, miễn là không giá trị nào bị cắt ở 255.",
        "blind_to_spread": "Tương quan không thấy **độ tương phản**: a·x với a > 0 có cùng hệ số tương quan với x, miễn là không giá trị "
        "nào bị cắt ở 255.",
        "blind_to_mean": "Tương quan không thấy **độ sáng**: nó trừ trung bình trước, nên x + b cho thứ hạng như x, miễn là không giá trị "
        "nào bị cắt ở 0 hay 255.",
    },
    sees_all="{metric} thấy mọi thay đổi này: thay đổi nào cũng có thể đổi thứ hạng.",
    find_dethroning="Tìm thay đổi nhỏ nhất làm hình đứng đầu mất ngôi",
    changed_query="hình truy vấn sau khi thay đổi",
    ranking_stays="**Thứ hạng giữ nguyên**: {count} hình đầu vẫn là những hình ấy, theo đúng thứ tự ấy.",
    ranking_moves="**Thứ hạng thay đổi**: trong {count} hình đầu còn lại {kept} hình; đứng đầu bây giờ là: {first}.",
    as_stated="Thứ hạng không thể thay đổi, như đã nói.",
    breaks_statement="Có giá trị bị cắt ở 0 hay 255, nên điều đã nói không còn đúng ở đây.",
    clipped="Có giá trị bị cắt ở 0 hay 255.",
    dethroning_columns=("Thay đổi", "Hình đứng đầu mất ngôi ở", "Khi đó đứng đầu là"),
    never="không bao giờ, từ {low:g} đến {high:g}",
    only_by_clipping="ở đó có giá trị bị cắt",
    metric="Độ đo",
    metrics={"l1": "L1", "l2": "L2", "cosine": "Cosine", "correlation": "Tương quan", "clip": "CLIP"},
    rewards={
        "l1": "Cộng khoảng cách màu của từng điểm ảnh: ưu tiên những hình có cùng màu ở cùng chỗ, và bỏ qua cho vài "
        "điểm lệch xa.",
        "l2": "Bình phương từng chênh lệch trước khi cộng: vài chênh lệch lớn nặng hơn nhiều chênh lệch nhỏ, nên các "
        "mảng lớn cùng độ sáng quyết định.",
        "cosine": "So sánh hướng của hai vector, không so độ dài: bản tối hơn của một hình vẫn gần như chính nó. Hai "
        "hình sáng luôn khá gần nhau.",
        "correlation": "Cosine sau khi trừ trung bình: độ sáng và độ tương phản không còn tính, chỉ còn chỗ nào sáng "
        "hơn hay tối hơn trung bình.",
        "clip": "So sánh điều mà một mạng đã huấn luyện nhìn thấy trong hai hình: nội dung, dù nằm ở đâu.",
    },
    smaller="Càng nhỏ càng giống; 0 là chính hình đó.",
    larger="Càng lớn càng giống; 1 là giống nhất.",
    k="Số hình trả về (k)",
    first="Chọn một ví dụ hoặc đưa vào một hình: những hình giống nhất sẽ hiện ra ở đây.",
    pixels_status="**{hits}** hình giống nhất trong {count} theo **{metric}**{scanned} · {ms:.1f} ms",
    rows_scanned=" · chỉ phải so sánh trọn vẹn {rows_scanned} hình",
    clip_status="**{hits}** hình giống nhất trong {count} theo **CLIP{metric}** · {ms:.0f} ms",
    metric_on_embeddings="So sánh các vector bằng",
    alike="Ở đây L2 và cosine xếp hạng như nhau, vì |a − b|² = 2 − 2 a·b với vector có độ dài 1.",
    matches="**chắc chắn khớp: {count} hình đầu**; một truy vấn không có hình khớp ở đây cũng tìm được hình tốt như những hình còn lại",
    no_matches="**không có hình nào chắc chắn khớp**: một truy vấn không có hình khớp ở đây cũng tìm được hình tốt như vậy",
    all_match="**tất cả đều chắc chắn khớp**",
    matches_meaning="*Chắc chắn khớp*: trong các truy vấn mà nhãn không có trong thư viện, nhiều nhất một phần mười được coi là có hình "
    "khớp, tính trung bình trên các nhãn như ở đây, không phải cho từng nhãn.",
    go_on="Bấm vào một hình để tìm những hình giống nó.",
    save="Lưu dạng",
    why="Vì sao: chọn một kết quả",
    why_rank="kết quả",
    why_query="hình truy vấn, như độ đo nhìn thấy",
    why_hit="kết quả, như độ đo nhìn thấy",
    why_map="điểm số đến từ đâu",
    why_pixels={
        "l1": "Mỗi ô là |a − b| của một điểm ảnh. Tất cả cộng lại là điểm số, {total:,.0f}: càng nóng, càng thêm vào "
        "khoảng cách.",
        "l2": "Mỗi ô là (a − b)² của một điểm ảnh. Cộng lại được {total:,.0f}, căn bậc hai là điểm số, {score:,.0f}: "
        "càng nóng, càng thêm vào khoảng cách.",
        "cosine": "Mỗi ô là a·b của một điểm ảnh chia cho hai độ dài. Cộng lại là điểm số, {score:.4f}: càng nóng, càng "
        "thêm vào độ giống. Vùng sáng quyết định.",
        "correlation": "Mỗi ô là tích hai độ lệch khỏi trung bình. Cộng lại là điểm số, {score:.4f}: nóng ở chỗ cả hai "
        "cùng phía so với trung bình, lạnh ở chỗ ngược phía.",
    },
    why_clip="Che khuất: lần lượt che từng phần của kết quả. Nóng: thiếu nó, độ giống cosine {score:.3f} giảm, nhiều nhất "
    "{drop:.3f}. Lạnh: độ giống tăng.",
    text="Lời",
    text_example="bông hoa màu đỏ",
    negative="Nhưng không có",
    negative_example="cái cây",
    weight="Trọng số của lời, khi có cả hình",
    labels="Chỉ những nhãn này",
    search="Tìm",
    suggestions="Lời để thử",
    suggested=("con mèo lớn có vằn", "nhạc cụ", "thuyền buồm", "con voi", "đàn ghi-ta"),
    compare="Một hình truy vấn, cả năm cách.",
    compare_agrees="● CLIP cũng tìm ra",
    compare_label="✓ cùng nhãn với hình truy vấn, {label}",
    all_labels="tất cả",
    label="Nhãn",
    page="Trang",
    previous="Trước",
    next="Sau",
    browse="{count} hình, trang {page} trên {pages}. Bấm vào một hình để tìm những hình giống nó.",
    evaluation="Kết quả tốt đến đâu?",
    evaluation_lead="Lần lượt {queries} hình của thư viện làm hình truy vấn. Precision@k: trong k hình khác giống nhất, "
    "bao nhiêu hình cùng nhãn. mAP: như vậy trên mọi thứ hạng.",
    evaluation_none="Thư viện này không có nhãn, nên không có gì để đo kết quả.",
    evaluation_held_out="{queries} hình không có trong thư viện, trong đó có các ví dụ ở trên, làm hình truy vấn trên toàn bộ "
    "thư viện:",
    filtered="CLIP trong một số nhãn so với mọi hình có nhãn đó, nên kết quả là chính xác. Nếu để Chroma tự tìm theo nhãn thì nó "
    "tìm ra {parts}.",
    filtered_part="{recall:.2%} trong {k} hình gần nhất thật sự ở {share} của thư viện ({rows} hình)",
    evaluation_captions="Từ chú thích tiếng {language} tìm ra hình của nó: nằm trong mười hình đầu ở {recall:.0%} số lần.",
    languages={"en": "Anh", "vi": "Việt"},
    description="Thư viện được đọc từ đâu",
    method="Cách",
    precision="Precision@10",
    by_label="Theo nhãn",
    map="Bản đồ thư viện",
    map_lead="Những hình mà CLIP cho là giống nhau nằm gần nhau. Bấm vào một hình để tìm những hình giống nó; vòng tròn "
    "là chỗ của hình truy vấn.",
    map_keys="Lăn chuột: phóng to, thu nhỏ; kéo: di chuyển. Phím: + − ← → ↑ ↓; Home: cả bản đồ; Enter: tìm với hình ở giữa; Esc: bỏ "
    "chọn.",
    map_touch="Hai ngón tay: phóng to, thu nhỏ hoặc di chuyển; một ngón: di chuyển khi đã phóng to.",
    zoom_in="Phóng to",
    zoom_out="Thu nhỏ",
    whole_map="Cả bản đồ",
    lasso="Khoanh vùng",
    mark_view="Chọn phần đang thấy",
    marked="Đang chọn và hiển thị <strong>{marked}</strong> hình trên bản đồ; {left_out} hình không được chọn.",
    not_on_map="Bản đồ có {on_map} trong {count} hình của thư viện; những hình không có chỗ trên đó cũng không được tính.",
    marked_labels="Nhãn của chúng: {labels}.",
    other_labels="và {count} nhãn khác",
    search_area="Tìm bằng CLIP chỉ trong những hình này",
    unmark="Bỏ chọn",
    only_in_area="✕ Chỉ {count} hình đã chọn trên bản đồ",
    duplicates="Hình trùng nhau",
    duplicates_lead="**{groups}** nhóm hình giống hệt hoặc gần như giống hệt nhau, gồm {pictures} hình.",
    duplicates_none="Thư viện này không có hai hình nào giống hệt hoặc gần như giống hệt nhau.",
    duplicates_kinds={"exact": "giống hệt", "near": "gần giống hệt"},
    course_text="""**1. Giới thiệu bài toán.** *Truy vấn hình ảnh (Images Retrieval)*: từ hình ảnh truy vấn (**Input**:
hình ảnh truy vấn Query Image và bộ dữ liệu Images Library) đến những hình tương tự (**Output**: danh sách hình ảnh, giống
nhất trước).

**2. Tải bộ dữ liệu.** Images Library là một bộ dữ liệu hình ảnh; thẻ *Thư viện* cho xem nó.

**3.1 Chương trình truy vấn ảnh cơ bản.** Một hình là vector các điểm ảnh, độ tương đồng là một công thức:
3.1.1 **độ đo L1**, `absolute_difference()` và `get_l1_score()`; 3.1.2 **độ đo L2**, `mean_square_difference()` và
`get_l2_score()`; 3.1.3 **Cosine Similarity**, `cosine_similarity()` và `get_cosine_similarity_score()`;
3.1.4 **Correlation Coefficient**, `correlation_coefficient()` và `get_correlation_coefficient_score()`.
Tất cả có trong gói `imgret`, dưới đúng những tên này. Mỗi độ đo không thấy gì (tương quan không thấy độ sáng và độ tương phản, cosine
không thấy độ tương phản), thẻ *Điểm ảnh* cho xem ở dưới các kết quả.

**3.2 Chương trình truy vấn ảnh nâng cao.** 3.2.1 Một *pretrained deep learning model*, CLIP, biến mỗi hình thành vector đặc
trưng, `get_single_image_embedding()`; *chromadb*, một vector database, tìm những vector gần nhất.""",
    worked_lead="**Từng con số của công thức.** Chọn hai hình và một độ đo. Cả hai được thu về 8 x 8 điểm ảnh xám, a và b; bảng "
    "thứ ba là các số hạng mà độ đo cộng lại.",
    worked_score="điểm số",
    overflow="Nếu a vẫn là `uint8`, bình phương của nó tràn số ở 256: khi đó độ dài của a là {overflowed:,.1f} thay vì {norm:,.1f}, và "
    "cosine của a với chính nó là {score:.2f} thay vì 1.",
    remarks="""**Vì sao số trong notebook của khoá học khác ở đây**
1. Cosine trong notebook giữ hình truy vấn ở kiểu `uint8`, nên bình phương bị tràn số ở 256. Một hình so với chính nó có thể được 14
   điểm thay vì 1. Mọi điểm số của một lần truy vấn thay đổi cùng một tỉ lệ, nên thứ hạng vẫn giữ nguyên.
2. L2 trong mã là trung bình của các bình phương, trong lời giảng là căn bậc hai của tổng. Thứ hạng giống nhau, con số thì khác.
3. Biểu đồ thứ hai gọi kết quả tốt nhất là "Top 2".
4. Với vector có độ dài 1, L2 và cosine xếp hạng như nhau, vì |a − b|² = 2 − 2 a·b. Vì vậy hai collection của Chroma tìm ra cùng
   những hình. L1 thì tìm ra hình khác.""",
    privacy="Hình bạn đưa vào chỉ dùng để tìm và bị xoá trong vòng hai giờ. Không có gì được gửi đi nơi khác.",
    programs="""Năm endpoint trả về JSON: `/search_pixels`, `/search_clip`, `/compare`, `/library` và `/duplicates`. *Use via
API*, ở cuối trang, cho biết mỗi endpoint nhận gì. Những chương trình này chạy được y như đã in.""",
    programs_mcp="""Mô hình ngôn ngữ hỏi qua MCP, với các công cụ `search_text`, `search_picture`, `search_pixels`,
`compare`, `library` và `duplicates`. Nó nêu id của những kết quả mà nó thích hay không thích, và nhận được địa chỉ để xem đúng những
kết quả ấy ở đây. Nó đưa một hình bằng URL công khai, bằng URL `data:`, bằng đường dẫn mà máy chủ trả về khi tải lên,
hoặc bằng id của một kết quả.""",
)

WORDS: Mapping[str, Words] = {"vi": VI, "en": EN}


def chosen_language(request: Request) -> str:
    """The language that the address names (`?lang=vi`), else the first that the browser asks for and we speak."""
    asked = [str(request.query_params.get("lang", ""))]
    asked += re.findall(r"[a-zA-Z]+", re.sub(r";[^,]*", "", str(request.headers.get("accept-language", ""))))
    return next((code for code in map(str.lower, asked) if code in WORDS), DEFAULT)

"""The texts of the page and of its errors, in English and Vietnamese."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from imgret.errors import Sentence
from imgret.ui.vietnamese import VIETNAMESE

LANGUAGES = {"vi": "Tiếng Việt", "en": "English"}
DEFAULT = "en"


@dataclass(frozen=True)
class Words:
    """All words of the page in one language; `{names}` are filled in by `str.format`."""

    title: str
    lead: str
    about: str
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
    query_picture: str
    drop: str
    part: str
    metric: str
    metrics: Mapping[str, str]
    rewards: Mapping[str, str]
    smaller: str
    larger: str
    k: str
    first: str
    pixels_status: str
    clip_status: str
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
    method: str
    precision: str
    by_label: str
    map: str
    map_lead: str
    duplicates: str
    duplicates_lead: str
    duplicates_none: str
    duplicates_kinds: Mapping[str, str]
    course: str
    course_text: str
    privacy: str
    programs: str
    programs_mcp: str


_EN_LANGUAGES = {"en": "English", "vi": "Vietnamese", "*": "about a hundred languages"}
_VI_LANGUAGES = {"en": "tiếng Anh", "vi": "tiếng Việt", "*": "khoảng một trăm ngôn ngữ"}

EN = Words(
    title="Image retrieval with basic maths",
    lead="Give a picture and see the most similar ones of a library: by four formulas on its pixels, or by what CLIP "
    "understands of it.",
    about="**{count}** pictures from `{library}` · encoder `{encoder}`, reads {languages} · the vector index finds "
    "{recall:.2%} of the true {k} nearest (ef_search {ef_search})",
    about_languages=_EN_LANGUAGES,
    starter="`starter` is the small encoder that comes along: it knows what a picture shows, and short English. The "
    "full CLIP, trained on two billion pictures with their texts, also follows whole sentences, style and setting.",
    wait="The library is being made ready …",
    stage="Making the library ready: {stage}",
    examples="Click an example, or give a picture of your own below",
    share="Copy the link of this search",
    shared="Copied",
    pixels_tab="Basic metrics",
    clip_tab="CLIP search",
    compare_tab="Compare",
    library_tab="Library",
    code_tab="From a program",
    query_picture="Query picture",
    drop="Drop a picture here, or click to choose one",
    part="Drag over the picture to search with that part of it (keys: + − ← → ↑ ↓); a click, or Esc, takes the whole again.",
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
    pixels_status="**{hits}** best of {count} pictures by **{metric}** · {rows_scanned} had to be looked at · {ms:.1f} ms",
    clip_status="**{hits}** best of {count} pictures by **CLIP** · {ms:.0f} ms",
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
    why_clip="Occlusion: each part of the hit was covered in turn. Warm: without it the similarity of {score:.3f} falls, "
    "by {drop:.3f} at most. Cool: it rises.",
    text="Text",
    text_example="a red flower",
    negative="But not",
    negative_example="a tree",
    weight="Weight of the text, where a picture is given, too",
    labels="Only these labels",
    search="Search",
    suggestions="Texts to try",
    suggested=("a red flower", "a bird with long legs", "something to eat", "a musical instrument", "a ship at sea"),
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
    method="Method",
    precision="Precision@10",
    by_label="By label",
    map="Map of the library",
    map_lead="Pictures that CLIP takes for similar lie close to each other. Click one to search for more like it; the "
    "ring is where the query belongs.",
    duplicates="Near duplicates",
    duplicates_lead="**{groups}** groups of pictures that are the same, or nearly: {pictures} pictures in all.",
    duplicates_none="No two pictures of this library are the same, or nearly.",
    duplicates_kinds={"exact": "equal", "near": "nearly equal"},
    course="The course in short",
    course_text="""**1. The task.** *Image retrieval*: from a query picture (**input**: a query image and an image
library) to the pictures that are similar to it (**output**: a list, best first).

**2. The data.** The library is a data set of pictures; the tab *Library* shows it.

**3.1 Basic retrieval.** A picture is a vector of its pixels, and similarity is a formula:
3.1.1 **L1**, `absolute_difference()` and `get_l1_score()`; 3.1.2 **L2**, `mean_square_difference()` and
`get_l2_score()`; 3.1.3 **Cosine Similarity**, `cosine_similarity()` and `get_cosine_similarity_score()`;
3.1.4 **Correlation Coefficient**, `correlation_coefficient()` and `get_correlation_coefficient_score()`.
All are in the package `imgret`, under these names.

**3.2 Advanced retrieval.** 3.2.1 A *pretrained deep learning model*, CLIP, turns each picture into an embedding,
`get_single_image_embedding()`; *Chroma*, a vector database, finds the nearest.""",
    privacy="An uploaded picture is used for your search and deleted within two hours. Nothing is sent anywhere else.",
    programs="""Five endpoints answer JSON: `/search_pixels`, `/search_clip`, `/compare`, `/library` and `/duplicates`. *Use
via API*, at the foot of the page, says what each takes. These programs run as they stand.""",
    programs_mcp="""A language model asks by MCP, with the tools `search_text`, `search_picture`, `search_pixels`,
`compare` and `library`. It gives a picture as a public URL, as a `data:` URL, as the path that an upload answered, or as
the id of a hit.""",
)

VI = Words(
    title="Truy vấn hình ảnh dùng các toán cơ bản",
    lead="Đưa vào một hình ảnh và xem những hình giống nó nhất trong thư viện: theo bốn công thức trên các điểm ảnh, "
    "hoặc theo điều mà CLIP hiểu về nó.",
    about="**{count}** hình ảnh từ `{library}` · mô hình `{encoder}`, đọc được {languages} · chỉ mục vector tìm ra "
    "{recall:.2%} trong {k} hình gần nhất thật sự (ef_search {ef_search})",
    about_languages=_VI_LANGUAGES,
    starter="`starter` là mô hình nhỏ đi kèm: nó biết trong hình có gì, và đọc tiếng Anh ngắn. CLIP đầy đủ, học từ hai "
    "tỉ hình ảnh có lời, còn hiểu cả câu dài, phong cách và bối cảnh.",
    wait="Đang chuẩn bị thư viện …",
    stage="Đang chuẩn bị thư viện: {stage}",
    examples="Bấm vào một ví dụ, hoặc đưa hình của bạn vào bên dưới",
    share="Chép liên kết của lần tìm này",
    shared="Đã chép",
    pixels_tab="Truy vấn cơ bản",
    clip_tab="Truy vấn nâng cao (CLIP)",
    compare_tab="So sánh",
    library_tab="Thư viện",
    code_tab="Từ chương trình",
    query_picture="Hình truy vấn",
    drop="Thả hình vào đây, hoặc bấm để chọn",
    part="Kéo chuột trên hình để truy vấn bằng phần đó của hình (phím: + − ← → ↑ ↓); bấm vào hình, hoặc phím Esc, để lấy lại cả hình.",
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
    pixels_status="**{hits}** hình giống nhất trong {count} theo **{metric}** · phải xem kỹ {rows_scanned} · {ms:.1f} ms",
    clip_status="**{hits}** hình giống nhất trong {count} theo **CLIP** · {ms:.0f} ms",
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
    why_clip="Che khuất: lần lượt che từng phần của kết quả. Nóng: thiếu nó, độ giống {score:.3f} giảm, nhiều nhất "
    "{drop:.3f}. Lạnh: độ giống tăng.",
    text="Lời",
    text_example="a red flower",
    negative="Nhưng không có",
    negative_example="a tree",
    weight="Trọng số của lời, khi có cả hình",
    labels="Chỉ những nhãn này",
    search="Tìm",
    suggestions="Lời để thử",
    suggested=EN.suggested,
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
    method="Cách",
    precision="Precision@10",
    by_label="Theo nhãn",
    map="Bản đồ thư viện",
    map_lead="Những hình mà CLIP cho là giống nhau nằm gần nhau. Bấm vào một hình để tìm những hình giống nó; vòng tròn "
    "là chỗ của hình truy vấn.",
    duplicates="Hình trùng nhau",
    duplicates_lead="**{groups}** nhóm hình giống hệt hoặc gần như giống hệt nhau, gồm {pictures} hình.",
    duplicates_none="Thư viện này không có hai hình nào giống hệt hoặc gần như giống hệt nhau.",
    duplicates_kinds={"exact": "giống hệt", "near": "gần giống hệt"},
    course="Tóm tắt khoá học",
    course_text="""**1. Giới thiệu bài toán.** *Truy vấn hình ảnh (Images Retrieval)*: từ hình ảnh truy vấn (**Input**:
hình ảnh truy vấn Query Image và bộ dữ liệu Images Library) đến những hình tương tự (**Output**: danh sách hình ảnh, giống
nhất trước).

**2. Tải bộ dữ liệu.** Images Library là một bộ dữ liệu hình ảnh; thẻ *Thư viện* cho xem nó.

**3.1 Chương trình truy vấn ảnh cơ bản.** Một hình là vector các điểm ảnh, độ tương đồng là một công thức:
3.1.1 **độ đo L1**, `absolute_difference()` và `get_l1_score()`; 3.1.2 **độ đo L2**, `mean_square_difference()` và
`get_l2_score()`; 3.1.3 **Cosine Similarity**, `cosine_similarity()` và `get_cosine_similarity_score()`;
3.1.4 **Correlation Coefficient**, `correlation_coefficient()` và `get_correlation_coefficient_score()`.
Tất cả có trong gói `imgret`, dưới đúng những tên này.

**3.2 Chương trình truy vấn ảnh nâng cao.** 3.2.1 Một *pretrained deep learning model*, CLIP, biến mỗi hình thành vector đặc
trưng, `get_single_image_embedding()`; *chromadb*, một vector database, tìm những vector gần nhất.""",
    privacy="Hình bạn đưa vào chỉ dùng để tìm và bị xoá trong vòng hai giờ. Không có gì được gửi đi nơi khác.",
    programs="""Năm endpoint trả về JSON: `/search_pixels`, `/search_clip`, `/compare`, `/library` và `/duplicates`. *Use via
API*, ở cuối trang, cho biết mỗi endpoint nhận gì. Những chương trình này chạy được y như đã in.""",
    programs_mcp="""Mô hình ngôn ngữ hỏi qua MCP, với các công cụ `search_text`, `search_picture`, `search_pixels`,
`compare` và `library`. Nó đưa một hình bằng URL công khai, bằng URL `data:`, bằng đường dẫn mà máy chủ trả về khi tải lên,
hoặc bằng id của một kết quả.""",
)

WORDS: Mapping[str, Words] = {"vi": VI, "en": EN}

# The sentences that the program answers bad requests with, in the order of the modules they come from.
_VIETNAMESE = [
    (r"This could not be answered; the log of the demo says why, under (\w+)\.", "Không trả lời được; nhật ký của trang cho biết vì sao, ở mục {0}."),
    (r"The file at (.+) is larger than (.+) MB; send a smaller copy\.", "Tệp ở {0} lớn hơn {1} MB; hãy gửi bản nhỏ hơn."),
    (r"There is nothing to search for; .*", "Chưa có gì để tìm; hãy đưa vào một hình, một lời, hoặc cả hai."),
    (r"There is no picture to search with; .*", "Chưa có hình để tìm; hãy đưa một hình lên hoặc chọn một ví dụ."),
    (r"The picture must be (?:an uploaded file|a file that was uploaded to this server)\.", "Hình phải là tệp đã được đưa lên máy chủ này."),
    (r"(.+) is not a picture that can be read; .*", "{0} không phải là hình đọc được; JPEG, PNG, WebP, GIF, BMP, TIFF và AVIF thì được."),
    (r"(.+) has a broken header .*", "{0} có phần đầu bị hỏng; hãy lưu lại thành JPEG hoặc PNG."),
    (r"(.+) is broken or breaks off before its end .*", "{0} bị hỏng hoặc bị cắt ngang; hãy lưu lại."),
    (r"(.+) is empty \(0 bytes\)\.", "{0} rỗng (0 byte)."),
    (r"(.+) has ([\d.]+) MB; at most ([\d.]+) MB are taken, .*", "{0} có {1} MB; nhiều nhất là {2} MB, hãy gửi bản nhỏ hơn."),
    (r"(.+) (?:is (\d+ x \d+) pixels|has far too many pixels); at most (.+) million are taken.*", "{0} có quá nhiều điểm ảnh; nhiều nhất là {2} triệu, hãy gửi bản nhỏ hơn."),
    (r"(.+) would take too much to decode .*", "{0} tốn quá nhiều công để giải mã; hãy lưu lại thành JPEG hoặc PNG."),
    (r"(.+) has no pixels .*", "{0} không có điểm ảnh nào."),
    (r"(.+) needs more memory than there is .*", "{0} cần nhiều bộ nhớ hơn máy có; hãy gửi bản nhỏ hơn."),
    (r"There is no picture file at .*", "Không có tệp hình ở đó."),
    (r"There is no picture (.+) in the library\.", "Trong thư viện không có hình {0}."),
    (r"There is no metric (.+); there are .*", "Không có độ đo {0}; có l1, l2, cosine và correlation."),
    (r"There is no label (.+?); .*", "Không có nhãn {0} trong thư viện này."),
    (r"A part of a picture is left,top,right,bottom: .*", "Một phần của hình là trái,trên,phải,dưới: bốn số từ 0 đến 1, theo thứ tự này."),
    (r"This library has no map\.", "Thư viện này không có bản đồ."),
    (r"There is no picture at (.+) that this server can download; .*", "Máy chủ không tải được hình nào ở {0}; hãy đưa một địa chỉ công khai."),
    (r"The embeddings .*(?:corrupt|cannot be searched|cannot be opened).*", "Các vector của chỉ mục bị hỏng; hãy lập lại chỉ mục."),
    (r"The index in .* is corrupt .*", "Chỉ mục bị hỏng; hãy lập lại."),
    (r"Search first; then a hit can be explained\.", "Hãy tìm trước; sau đó có thể giải thích một kết quả."),
    (r"There is no such example\.", "Không có ví dụ đó."),
    (r"k is (.+); it must be a whole number of at least 1\.", "k là {0}; k phải là số nguyên từ 1 trở lên."),
    (r"The weight of the text is (.+); it must .*", "Trọng số của lời là {0}; phải là số từ 0 đến 1."),
    (r"The (?:negative )?text is empty; .*", "Lời đang trống; hãy viết vài chữ hoặc bỏ qua."),
    (r"The (?:negative )?text has (\d+) characters; at most (\d+) are taken\.", "Lời có {0} chữ; nhiều nhất là {1}."),
    (r"The parts of the query cancel each other out; .*", "Các phần của truy vấn triệt tiêu nhau; hãy đổi lời, lời phủ định hoặc trọng số."),
    (r"The encoder of this library reads English only, .*", "Mô hình của thư viện này chỉ đọc tiếng Anh, nên lời này có thể tìm được ít; hãy thử tiếng Anh."),
    (r"The library has (\d+) pictures, so k is \d+\.", "Thư viện có {0} hình, nên k là {0}."),
    (r"The demo could not start; its log says why\.", "Trang không khởi động được; nhật ký của nó nói vì sao."),
    (r"These are (\d+) pictures of the library, which is still being indexed\.", "Đây là {0} hình của thư viện; phần còn lại đang được lập chỉ mục."),
    (r"This is all of the library that could be indexed\. (.*)", "Đây là tất cả những gì của thư viện lập chỉ mục được. {0}"),
    (r"This is the library as it was when its index was built here\. (.*)", "Đây là thư viện như lúc chỉ mục của nó được lập ở đây. {0}"),
    (r"This is the embedded library, until (.*) has been indexed\.", "Đây là thư viện đi kèm, trong khi {0} đang được lập chỉ mục."),
    (r"This is the embedded library, because the configured one cannot be had\. (.*)", "Đây là thư viện đi kèm, vì thư viện đã đặt không lấy được. {0}"),
    (r"The Chroma server at (\S+) cannot be reached .*", "Không kết nối được với máy chủ Chroma ở {0}; các độ đo trên điểm ảnh vẫn dùng được."),
    (r"The Chroma server at (\S+) does not answer; .*", "Máy chủ Chroma ở {0} không trả lời; các độ đo trên điểm ảnh vẫn dùng được."),
    (r"The Chroma server at (\S+) does not take the token; .*", "Máy chủ Chroma ở {0} không nhận token; hãy đặt lại IMGRET_CHROMA_TOKEN."),
    (r"The Chroma server at (\S+) has no collection (\S+), .*", "Máy chủ Chroma ở {0} không có collection {1} của chỉ mục này; hãy lập lại chỉ mục."),
    (r"The Chroma server at (\S+) cannot do what it was asked \((.*)\)\.", "Máy chủ Chroma ở {0} không làm được việc được hỏi ({1})."),
    (r"The collection (\S+) on the Chroma server at (\S+) is not that of this index \((.*)\); .*", "Collection {0} trên máy chủ Chroma ở {1} không phải của chỉ mục này ({2}); hãy xoá nó và lập lại chỉ mục."),
    (r"The vectors of this index are on the Chroma server at (\S+); .*", "Vector của chỉ mục này nằm trên máy chủ Chroma ở {0}; hãy đặt IMGRET_CHROMA_URL, hoặc lập lại chỉ mục không có nó."),
    (r"(.+) is not the address of a Chroma server, .*", "{0} không phải là địa chỉ của một máy chủ Chroma, ví dụ http://127.0.0.1:8000."),
    (r"The address of the Chroma server at (\S+) has a name or a password in it; .*", "Địa chỉ của máy chủ Chroma ở {0} có tên hoặc mật khẩu; hãy bỏ đi và đặt IMGRET_CHROMA_TOKEN."),
    (r"The token of the Chroma server has characters that no token has; .*", "Token của máy chủ Chroma có ký tự không dùng được; hãy đặt lại IMGRET_CHROMA_TOKEN."),
    (r"The vectors are kept here, because the Chroma server cannot be had\. (.*)", "Vector được giữ tại đây, vì không dùng được máy chủ Chroma. {0}"),
]  # fmt: skip


def chosen_language(request: gr.Request | None) -> str:
    """The language that the address names (`?lang=vi`), else the first that the browser asks for and we speak."""
    if request is None:
        return DEFAULT
    asked = [str(request.query_params.get("lang", ""))]
    asked += re.findall(r"[a-zA-Z]+", re.sub(r";[^,]*", "", str(request.headers.get("accept-language", ""))))
    return next((code for code in map(str.lower, asked) if code in WORDS), DEFAULT)


def translated(sentence: str, language: str) -> str:
    """A sentence of ours in `language`; one without a translation stays English, as text of others does."""
    if language == "vi" and isinstance(sentence, Sentence) and (sentence.values or sentence.template in VIETNAMESE):
        values = {
            name: translated(value, language) if isinstance(value, str) else value
            for name, value in sentence.values.items()
        }
        template = VIETNAMESE.get(sentence.template, sentence.template)
        return template.format(**values) if values else template
    if language == "vi":
        for pattern, vietnamese in _VIETNAMESE:
            if found := re.fullmatch(pattern, sentence, re.DOTALL):
                return vietnamese.format(*(group or "" for group in found.groups()))
    return sentence

"""Texts in encodings from before Unicode: told apart, or refused."""

import random
import unicodedata

import pytest

from knowledge.ingestion.parse import ParseError, ParseLimits, parse_document
from knowledge.ingestion.sandbox import parse_in_sandbox

# fmt: off
TEXTS = {
    "ja": (
        "ネットワークの保守手順書。境界ルータの再起動は必ず二人で行い、事前に変更要求を提出すること"
        "。手順は以下の通りである。\n"
        "まず監視システムの警報を一時的に停止し、待機系へ切り替える。次に設定を保存し、装置の電源を入れ直す。"
    ),
    "ko": (
        "네트워크 유지보수 절차서입니다. 경계 라우터를 재시작할 때는 반드시 두 사람이 함께 작업하고 변경 "
        "요청서를 제출합니다.\n"
        "먼저 감시 시스템의 경보를 잠시 중지하고 대기 장비로 전환합니다. 그다음 설정을 저장하고 장비의 "
        "전원을 다시 켭니다."
    ),
    "zh": (
        "网络维护手册。边界路由器的重启必须由两人完成，并提前提交变更请求。步骤如下所示。\n"
        "首先暂时关闭监控系统的告警，切换到备用设备。然后保存配置，重新接通设备电源。"
    ),
    "zht": (
        "網路維護手冊。邊界路由器的重新啟動必須由兩人完成，並提前提交變更請求。步驟如下所示。\n"
        "首先暫時關閉監控系統的警報，切換到備用設備。然後儲存設定，重新接通設備電源。"
    ),
    "he": (
        "מדריך תחזוקה לרשת. יש לבצע אתחול של נתב הגבול על ידי שני אנשים בלבד ולהגיש בקשת שינוי מראש.\n"
        "תחילה יש להשתיק את ההתראות של מערכת הניטור ולעבור לציוד הגיבוי. לאחר מכן שומרים את ההגדרות ומדליקים "
        "מחדש את המכשיר."
    ),
    "ar": (
        "دليل صيانة الشبكة. يجب أن يقوم شخصان بإعادة تشغيل جهاز التوجيه الحدودي وتقديم طلب تغيير مسبقا.\n"
        "أولا يتم إيقاف تنبيهات نظام المراقبة مؤقتا والتحويل إلى الجهاز الاحتياطي. بعد ذلك تحفظ الإعدادات "
        "ويعاد تشغيل الجهاز."
    ),
    "ru": (
        "Руководство по обслуживанию сети. Перезапуск пограничного маршрутизатора выполняют два человека.\n"
        "Сначала временно отключите оповещения системы мониторинга и переключитесь на резервное устройство. "
        "Затем сохраните настройки."
    ),
    "pl": (
        "Instrukcja konserwacji sieci. Ponowne uruchomienie routera brzegowego wymaga dwóch osób i "
        "wcześniejszego zgłoszenia zmiany.\n"
        "Najpierw należy wyłączyć powiadomienia systemu nadzoru i przełączyć ruch na urządzenie zapasowe. "
        "Następnie zapisać konfigurację."
    ),
    "cs": (
        "Příručka pro údržbu sítě. Restart hraničního směrovače provádějí vždy dva lidé a předem podají "
        "žádost o změnu.\n"
        "Nejprve dočasně vypněte upozornění dohledového systému a přepněte provoz na záložní zařízení. Poté "
        "uložte nastavení."
    ),
    "el": (
        "Οδηγός συντήρησης δικτύου. Η επανεκκίνηση του δρομολογητή γίνεται πάντα από δύο άτομα μετά από "
        "αίτημα αλλαγής.\n"
        "Πρώτα απενεργοποιήστε προσωρινά τις ειδοποιήσεις και μεταβείτε στην εφεδρική συσκευή. Στη συνέχεια "
        "αποθηκεύστε τις ρυθμίσεις."
    ),
    "tr": (
        "Ağ bakım kılavuzu. Sınır yönlendiricisinin yeniden başlatılması her zaman iki kişi tarafından "
        "yapılır ve önceden istek açılır.\n"
        "Önce izleme sisteminin uyarılarını geçici olarak kapatın ve yedek cihaza geçin. Ardından ayarları "
        "kaydedin."
    ),
    "th": (
        "คู่มือการบำรุงรักษาเครือข่าย การรีสตาร์ทเราเตอร์ต้องทำโดยสองคนและต้องส่งคำขอเปลี่ยนแปลงล่วงหน้า\n"
        "ขั้นแรกให้ปิดการแจ้งเตือนของระบบตรวจสอบชั่วคราวและสลับไปยังอุปกรณ์สำรอง จากนั้นบันทึกการตั้งค่า"
    ),
    "de": (
        "Handbuch für die Wartung des Netzes. Der Neustart des Grenzrouters erfolgt immer zu zweit, nach "
        "einem Änderungsantrag.\n"
        "Zuerst die Meldungen der Überwachung vorübergehend abschalten und auf das Ersatzgerät umschalten. "
        "Größe der Rahmen prüfen."
    ),
    "fr": (
        "Manuel de maintenance du réseau. Le redémarrage du routeur de bordure est toujours effectué à deux, "
        "après une demande de changement.\n"
        "Désactivez d'abord les alertes du système de surveillance, puis basculez vers l'équipement de "
        "secours. Ensuite, enregistrez les réglages."
    ),
    "es": (
        "Manual de mantenimiento de la red. El reinicio del enrutador de borde lo hacen siempre dos "
        "personas, tras una petición de cambio.\n"
        "Primero desactive temporalmente los avisos del sistema de vigilancia y pase al equipo de reserva. "
        "Después guarde la configuración."
    ),
}
ENCODINGS = [
    ("ja", "cp932"), ("ja", "euc_jp"), ("ja", "iso2022_jp"),
    ("ko", "euc_kr"), ("ko", "cp949"),
    ("zh", "gb18030"),
    ("zht", "big5"),
    ("he", "cp1255"), ("he", "iso8859_8"),
    ("ar", "cp1256"),
    ("ru", "cp1251"), ("ru", "koi8_r"), ("ru", "cp866"), ("ru", "iso8859_5"),
    ("pl", "cp1250"), ("pl", "iso8859_2"),
    ("cs", "cp1250"), ("cs", "iso8859_2"),
    ("el", "cp1253"),
    ("tr", "cp1254"),
    ("th", "cp874"),
    ("de", "cp1252"), ("de", "mac_roman"), ("de", "cp850"),
    ("fr", "cp1252"), ("fr", "mac_roman"),
    ("es", "cp1252"),
]
# fmt: on
ENGLISH = (
    "Interface ge-0/0/1 on edge router HAM3 went down at 04:12. Check the optics, then compare with the last backup.\n"
    "The BGP session to AS64512 comes back after the hold timer. MTU 9216 on both sides, LACP fast.\n"
)


def read(data: bytes) -> str:
    return parse_document(data=data, filename="a.txt").text


@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
def test_a_legacy_encoding_is_told(language: str, encoding: str) -> None:
    text = TEXTS[language]
    for words in (text, f"{ENGLISH}{text}\n{ENGLISH}", text.partition("\n")[0]):
        assert read(words.encode(encoding)).strip() == unicodedata.normalize("NFC", words).strip()


def test_the_process_that_parses_knows_them_all() -> None:
    for language, encoding in ENCODINGS:
        text = TEXTS[language]
        parsed = parse_in_sandbox(data=text.encode(encoding), filename="a.txt", limits=ParseLimits())
        assert parsed.text.strip() == unicodedata.normalize("NFC", text), encoding


def test_typographic_signs_alone_are_those_of_windows() -> None:
    text = "Don’t touch the “core” switch – it draws 30 W … at 25 °C.\n"
    assert read(text.encode("cp1252")) == text


def test_what_makes_sense_in_no_encoding_is_refused() -> None:
    noise = random.Random(1).choices([*range(32, 127), *range(128, 256)], k=2000)
    with pytest.raises(ParseError, match="save it as UTF-8") as caught:
        read(bytes(noise))
    assert caught.value.code == "wrong_type"
    # A few odd bytes in a long text are no reason to refuse it.
    assert read(ENGLISH.encode() * 40 + b"\x81\xfe\xff\n").startswith("Interface ge-0/0/1")
